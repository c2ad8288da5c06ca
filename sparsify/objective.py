"""What training and evaluation compute of a batch: losses, the L1 norm of x1, and its zeros.

x1 = σ(x·Wgateᵀ) ⊙ (x·Wupᵀ) is the input of every `mlp.down_proj`, so a forward pre-hook there sees
it in any LLaMA-family model without changing the model.
"""

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, kl_div, linear_cross_entropy, log_softmax

IGNORE = -100
WHOLE_LOGITS = 1 << 26  # logits of a micro-batch that are computed at once, where that is faster


class Objective(torch.nn.Module):
    """A causal LM with its losses in one forward pass, as distributed wrappers need it.

    `teacher`: a frozen model with the same vocabulary for distillation, or None; it is no
    submodule, so it is neither trained nor sharded nor saved. `compiled`: use torch.compile while
    training. The hooks stay on `model`.
    """

    def __init__(self, model, teacher=None, compiled=False):
        super().__init__()
        self.model = model
        hidden = {"teacher": teacher, "body": model.model}
        if compiled:
            hidden["body"] = torch.compile(model.model)
        self.__dict__.update(hidden)
        self._l1 = [None] * len(model.model.layers)
        self._zeros = list(self._l1)
        for i, layer in enumerate(model.model.layers):
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda _, args, i=i: self._see(i, args[0])
            )

    def _see(self, i, x1):
        self._l1[i] = x1.abs().mean(dtype=torch.promote_types(x1.dtype, torch.float32))
        self._zeros[i] = (x1 == 0).mean(dtype=torch.float32)

    def forward(self, x, y):
        """x, y: ids [rows, context]; targets IGNORE do not count. Returns

        nll:   Σ over targets of −log p(y), nats
        kl:    Σ over targets of KL(teacher ‖ model); 0 without a teacher, and in eval mode
        l1:    mean |x1| over tokens and neurons [layers]. The mean over neurons, in place of the
               paper's norm, makes λ comparable between widths
        zeros: share of exact zeros in x1 [layers]
        """
        body = self.body if self.training else self.model.model
        hidden = body(input_ids=x, use_cache=False).last_hidden_state.flatten(0, 1)
        l1, zeros = torch.stack(self._l1), torch.stack(self._zeros)
        y = y.flatten()
        device, head = x.device.type, self.model.lm_head
        mixed = self.training and torch.is_autocast_enabled(device)
        teacher = self.teacher if self.training else None
        if teacher is None and mixed and len(y) * head.out_features <= WHOLE_LOGITS:
            nll = cross_entropy(head(hidden).float(), y, reduction="sum", ignore_index=IGNORE)
            return nll, nll.new_zeros(()), l1, zeros
        with torch.autocast(device, enabled=False):
            weight = head.weight.to(torch.promote_types(head.weight.dtype, torch.float32))
            hidden = hidden.to(weight.dtype)
            if teacher is None:
                options = LinearCrossEntropyOptions() if torch.is_grad_enabled() else None
                nll = linear_cross_entropy(
                    hidden, weight, y, reduction="sum", ignore_index=IGNORE, options=options
                )
                return nll, nll.new_zeros(()), l1, zeros
            own = log_softmax(hidden @ weight.T, -1)
        with torch.no_grad():
            wanted = log_softmax(teacher(input_ids=x, use_cache=False).logits.float(), -1)
        valid = y != IGNORE
        nll = -own.gather(1, y.clamp(min=0)[:, None])[:, 0][valid].sum()
        kl = kl_div(own, wanted.flatten(0, 1), log_target=True, reduction="none").sum(-1)
        return nll, kl[valid].sum(), l1, zeros
