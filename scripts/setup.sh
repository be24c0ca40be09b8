#!/usr/bin/env bash
# Makes a machine able to build alexc: installs the packages of scripts/packages.txt that are missing
# and checks the Rust toolchain and LLVM. When all is there it changes nothing and takes no time, so
# every make target that builds runs it first.
#
# Debian and Ubuntu are served by apt-get. Elsewhere it installs nothing, but is content when the
# environment variables of .cargo/config.toml point at an LLVM 22 with MLIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

llvm_major=22
packages_file=scripts/packages.txt

say() { printf 'setup: %s\n' "$*" >&2; }

# What to do by hand, for a system or a failure that this script cannot handle.
by_hand() {
  cat >&2 <<EOT
setup: $1
setup: install by hand:
setup:   - LLVM and MLIR $llvm_major with headers, static MLIR libraries and libLLVM.so, their tools
setup:     (llvm-config, mlir-tblgen) and lld; libclang 19 or newer; a C compiler; pkg-config; the
setup:     development files of zstd, zlib, libxml2 and z3
setup:     (Debian and Ubuntu names: $(wanted | paste -sd' ');
setup:     where the distribution lacks them, LLVM's own Debian and Ubuntu repository has them)
setup: and, unless LLVM is in /usr/lib/llvm-$llvm_major and libclang in /usr/lib/llvm-19/lib, set
setup:   LLVM_SYS_221_PREFIX, MLIR_SYS_220_PREFIX and TABLEGEN_220_PREFIX to the folder that holds
setup:     bin/llvm-config, and LIBCLANG_PATH to the folder that holds libclang.so
EOT
  exit 1
}

wanted() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$packages_file"; }

# The packages of the list that are not installed.
missing() {
  comm -23 <(wanted | sort -u) \
    <(dpkg-query --show --showformat='${db:Status-Status} ${binary:Package}\n' 2>/dev/null |
      sed -n 's/^installed //p' | sed 's/:.*//' | sort -u)
}

install_packages() {
  local names as_root=()
  mapfile -t names < <(missing)
  [ "${#names[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      by_hand "missing packages (${names[*]}), and this is neither root nor is there sudo to become it"
    as_root=(sudo)
  fi
  say "installing ${names[*]}"
  "${as_root[@]}" apt-get update -qq >&2 ||
    say "apt-get update failed; trying with the package lists that are here"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends "${names[@]}" >&2 ||
    by_hand "apt-get could not install ${names[*]} (its own message is above)"
}

check_llvm() {
  local prefix version name
  for name in LLVM_SYS_221_PREFIX MLIR_SYS_220_PREFIX TABLEGEN_220_PREFIX; do
    prefix=${!name:-/usr/lib/llvm-$llvm_major}
    [ -x "$prefix/bin/llvm-config" ] || by_hand "no llvm-config in $prefix/bin (the place that $name names)"
    version=$("$prefix/bin/llvm-config" --version)
    [ "${version%%.*}" = "$llvm_major" ] ||
      by_hand "$prefix holds LLVM $version (the place that $name names), and LLVM $llvm_major is needed"
  done
}

check_libclang() {
  local folder=${LIBCLANG_PATH:-/usr/lib/llvm-19/lib}
  compgen -G "$folder/libclang*.so*" >/dev/null ||
    by_hand "no libclang.so in $folder (the place that LIBCLANG_PATH names)"
}

check_rust() {
  local needed found name
  needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
  if ! command -v cargo >/dev/null; then
    say "no cargo on the PATH: install Rust $needed or newer with rustup (https://rustup.rs),"
    say "then open a new shell or run: . \"\$HOME/.cargo/env\""
    exit 1
  fi
  found=$(cargo --version | awk '{print $2}')
  if [ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
    say "cargo $found is older than the Rust $needed that Cargo.toml asks for: run \`rustup update\`"
    exit 1
  fi
  for name in rustfmt clippy-driver; do
    command -v "$name" >/dev/null && continue
    say "no $name, which \`make test\` needs: run \`rustup component add rustfmt clippy\`"
    exit 1
  done
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  install_packages
fi
check_llvm
check_libclang
check_rust
