#!/usr/bin/env bash
# Builds the page into a folder that any static file server can serve: `examples/web/build.sh [FOLDER]`, out/web by default.
#
# Needs a Rust toolchain for wasm32-unknown-unknown (rustup's target of that name, or else a toolchain with Rust's sources,
# as Debian's packages rustc-web, cargo-web and rust-web-src are, which then builds the standard library too) and the
# wasm-bindgen of the version in Cargo.lock. There is no wasm-opt in it: it would save 2 %, and that of Debian 12 (binaryen
# 108) takes the page's two tables for one another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-"$here/../../out/web"}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here"

most=3000000
target=wasm32-unknown-unknown

fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# The first compiler on which something inside its folder of targets exists, of those on the path and in /usr/bin.
compiler_with() {
  local rustc
  for rustc in rustc /usr/bin/rustc; do
    command -v "$rustc" >/dev/null || continue
    if [ -e "$("$rustc" --print sysroot)/lib/rustlib/$1" ]; then
      echo "$rustc"
      return
    fi
  done
}

version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
[ "$(wasm-bindgen --version 2>/dev/null)" = "wasm-bindgen $version" ] ||
  fail "wasm-bindgen $version is not on the path: cargo install wasm-bindgen-cli --version $version"

# --- the program --------------------------------------------------------------------------------------------------

cargo=(cargo build --release --locked --target "$target" --target-dir target)
rustc=$(compiler_with "$target/lib")
# Any of these two, for a toolchain that has but the other's name for its linker.
if [ -n "$rustc" ]; then
  export RUSTC="$rustc"
else
  rustc=$(compiler_with src/rust/library/std)
  [ -n "$rustc" ] || fail "no Rust for $target: rustup target add $target, or apt-get install rustc-web cargo-web rust-web-src lld"
  export RUSTC="$rustc" RUSTC_BOOTSTRAP=1
  cargo+=(-Z "build-std=std,panic_abort" -Z "build-std-features=")
  # A toolchain without a linker of its own borrows one.
  host=$("$rustc" -vV | sed -n 's/^host: //p')
  if [ ! -e "$("$rustc" --print sysroot)/lib/rustlib/$host/bin/rust-lld" ]; then
    linker=$(command -v wasm-ld || true)
    for other in rustc /usr/bin/rustc; do
      command -v "$other" >/dev/null || continue
      borrowed="$("$other" --print sysroot)/lib/rustlib/$host/bin/rust-lld"
      [ ! -e "$borrowed" ] || linker=$borrowed
    done
    [ -n "$linker" ] || fail "no linker for $target: apt-get install lld"
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C linker-flavor=wasm-ld"
  fi
fi
# The cargo beside the compiler: options of another version may differ.
[ "$rustc" != /usr/bin/rustc ] || cargo[0]=/usr/bin/cargo
"${cargo[@]}"

# --- the folder ---------------------------------------------------------------------------------------------------

rm -f "$out"/*.wasm "$out"/*.js "$out"/*.css "$out"/*.html
wasm-bindgen --target web --no-typescript --remove-name-section --remove-producers-section \
  --out-dir "$out" --out-name freeguide "target/$target/release/freeguide_web.wasm"
cp page/* "$out"

total=$(cat "$out"/* | wc -c)
printf '%s: %s bytes in all\n' "$out" "$total"
[ "$total" -lt "$most" ] || fail "the page is larger than $most bytes"
echo "serve it with: python3 -m http.server --directory $out"
