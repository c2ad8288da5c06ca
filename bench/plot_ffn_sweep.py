#!/usr/bin/env python3
"""Draws the CSV of lacuna-ffn-sweep: for each density, the times of dense, sparse and the
dispatcher's choice over the batch, and below how near the choice comes to the better of both.

    lacuna-ffn-sweep >sweep.csv && bench/plot_ffn_sweep.py sweep.csv sweep.png
"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # A batch's density is what its random inputs give; a sweep begins anew at batch 1.
    sweeps = []
    for row in rows:
        if not sweeps or int(row["batch"]) <= int(sweeps[-1][-1]["batch"]):
            sweeps.append([])
        sweeps[-1].append(row)
    figure, panels = plt.subplots(
        2, len(sweeps), figsize=(2.6 * len(sweeps), 5), squeeze=False, sharex=True, sharey="row"
    )
    for sweep, above, below in zip(sweeps, *panels):
        batches = [int(row["batch"]) for row in sweep]
        for mode, style in (("dense", "s--"), ("sparse", "o--"), ("auto", "k-")):
            above.plot(batches, [float(row[f"{mode}_ms"]) for row in sweep], style, ms=4, label=mode)
        density = sum(float(row["density"]) for row in sweep) / len(sweep)
        above.set(title=f"{density:.0%} active", xscale="log", yscale="log")
        below.plot(batches, [float(row["best_over_auto"]) for row in sweep], "k.-")
        below.axhline(0.97, color="tab:red", lw=0.8)
        below.set(xlabel="batch", xticks=batches, ylim=(0.8, 1.2))
        below.set_xticklabels(batches, fontsize=7)
        below.minorticks_off()
    panels[0][0].set_ylabel("ms a layer")
    panels[1][0].set_ylabel("best / auto")
    panels[0][-1].legend(fontsize=8)
    figure.suptitle(f"{rows[0]['shape']}, {rows[0]['weights']}")
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
