#ifndef LACUNA_SERVER_VERSION_H_
#define LACUNA_SERVER_VERSION_H_

namespace lacuna {

// Of project() in the top CMakeLists.txt.
inline constexpr char kVersion[] = LACUNA_VERSION;

}  // namespace lacuna

#endif  // LACUNA_SERVER_VERSION_H_
