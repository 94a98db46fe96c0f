# shellcheck shell=bash
# The Rust toolchain and the release build of archvhost.
# Debian 12's plain `cargo` (0.66) is too old; its `cargo-web`, kept current for browsers, is not. A rustup toolchain is
# used where there is one. Needs: say.sh, packages.sh, $ROOT.

# Prints the least minor version that Cargo.toml asks for.
cargo_minor_min() { sed -n 's/^rust-version = "1\.\([0-9]*\)".*/\1/p' "$ROOT/Cargo.toml"; }

# Prints the minor version of the cargo that would run, or nothing.
cargo_minor() { (cd "$ROOT" && cargo --version 2>/dev/null) | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p'; }

require_cargo() {
  [ ! -d "$HOME/.cargo/bin" ] || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null || install_packages_for rust
  local minor minor_min
  minor=$(cargo_minor) minor_min=$(cargo_minor_min)
  [ "${minor:-0}" -ge "$minor_min" ] || fail "cargo 1.$minor_min or newer is needed, and $(command -v cargo) is\
 $(cargo --version 2>&1 | head -1). Either 'apt-get install cargo-web rustc-web' in its place, or https://rustup.rs"
}

# build_archvhost TARGETS...: builds cargo's targets (--bins, …) and puts the program's path into ARCHVHOST.
build_archvhost() {
  (cd "$ROOT" && cargo build --release --locked --quiet "$@") || fail "cargo build --release"
  ARCHVHOST=${CARGO_TARGET_DIR:-$ROOT/target}/release/archvhost
  export ARCHVHOST
}
