#!/usr/bin/env bash
# Finds the wheel of k2 that fits the torch that is installed, and prints the command that installs it.
#
#   bash tools/install_k2.sh              print the command
#   bash tools/install_k2.sh --install    and run it
#   bash tools/install_k2.sh --page FILE_OR_URL
#
# Each wheel of k2 is built for one version of torch and CUDA; they are listed on cpu.html and cuda.html of
# https://k2-fsa.github.io/k2. --page names another list, such as a saved page: a file, file://... or https://.... If the
# page has a hash of the wheel, pip checks it; otherwise https is the only protection. The package index also has wheels
# of k2, but for an old torch, and one of them claims to fit Pythons that cannot import it. PYTHON is the interpreter to
# install for, python3 by default.
set -euo pipefail

PYTHON=${PYTHON:-python3}
page=""
install=false

say() { echo "install_k2.sh: $*" >&2; }
stop() { say "error: $*"; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    --install) install=true ;;
    --page)
        [ $# -ge 2 ] || stop "--page needs a value"
        page=$2
        shift
        ;;
    *) stop "unknown option $1; the options are --install --page --help" ;;
    esac
    shift
done

# torch's version, its CUDA or "cpu", the Python tag and the platform, such as "2.7.1 cpu cp311 linux_x86_64"
facts() { "$PYTHON" -c 'import sys, sysconfig, torch
print(torch.__version__.split("+")[0], torch.version.cuda or "cpu", "cp%d%d" % sys.version_info[:2],
      sysconfig.get_platform().replace("-", "_").replace(".", "_"))'; }

# The k2 that is installed and "works" or "broken"; nothing where there is none
installed() { "$PYTHON" -c 'from importlib.metadata import version
name = version("k2")
try:
    import k2
    print(name, "works")
except ImportError:
    print(name, "broken")' 2>/dev/null || true; }

# The page $1, a file or a URL; a redirection has to stay with https, too.
read_page() { "$PYTHON" - "$1" <<'END'
import pathlib, sys, urllib.error, urllib.request
place = sys.argv[1]
LIMIT = 1 << 24  # bytes; k2's pages have some hundred thousand

class Https(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, url):
        if not url.startswith("https://"):
            raise urllib.error.URLError(f"it leads to {url}, which is not https")
        return super().redirect_request(request, file, code, message, headers, url)

try:
    opener = urllib.request.build_opener(Https)
    with opener.open(place, timeout=60) if "://" in place else pathlib.Path(place).open("rb") as file:
        text = file.read(LIMIT)
except (OSError, ValueError) as error:
    sys.exit(f"{error}")
sys.stdout.write(text.decode("utf-8", "replace"))
END
}

# The names of the wheels on a page: what a name of a wheel can have, and nothing that means something to a shell
wheels() { grep -oE 'k2-[0-9][A-Za-z0-9._+-]*\.whl' | sort -u; }

# The command line $@ as it can be copied into a shell
shown() {
    local quoted
    printf -v quoted '%q ' "$@"
    echo "${quoted% }"
}

command -v "$PYTHON" >/dev/null || stop "no $PYTHON in PATH; install Python 3.11 or newer, or set PYTHON"
found=$(facts 2>/dev/null) || stop "$PYTHON cannot import torch; install it first: k2 is made for one torch"
read -r torch cuda tag platform <<<"$found"
say "torch $torch, CUDA ${cuda/cpu/none}, Python $tag, $platform"

read -r version state <<<"$(installed)" || true
if [ "$state" = works ]; then
    say "k2 $version is installed and can be imported; there is nothing to do"
    exit 0
fi
remove=()
if [ "$state" = broken ]; then
    origin="it was made for another torch or Python"
    [[ $version == *+* ]] || origin="it came from the package index, whose wheels are for another torch and Python"
    say "k2 $version is installed but cannot be imported: $origin. It has to go"
    remove=("$PYTHON" -m pip uninstall --yes k2)
fi

kind=cuda
local=cuda$cuda
if [ "$cuda" = cpu ]; then kind=cpu local=cpu; fi
page=${page:-https://k2-fsa.github.io/k2/$kind.html}
case $page in
https://* | file://*) ;;
*://*) stop "--page $page: only https://, file:// or a file, since what it lists gets installed" ;;
esac
listed=$(read_page "$page") || stop "cannot read $page; save the page where there is a network, and give it with --page"
listed=${listed//%2[Bb]/+}
names=$(wheels <<<"$listed") || stop "$page lists no wheels of k2; give the right page with --page"

case $platform in # of wheels: manylinux_2_17_x86_64.manylinux2014_x86_64, linux_x86_64, macosx_11_0_arm64, win_amd64
linux_*) fitting="linux.*_${platform#linux_}" ;;
macosx_*) fitting="macosx_.*_(${platform#macosx_*_*_}|universal2)" ;;
*) fitting=$platform ;;
esac
fitting="-$tag-$tag-.*${fitting}[.]whl$"
made_for=$local.torch$torch
wheel=$(grep -E -- "[+]${made_for//./[.]}$fitting" <<<"$names" | sort -V | tail -n 1) || true
if [ -z "$wheel" ]; then
    others=$(grep -E -- "$fitting" <<<"$names" | sed -n 's/^[^+]*+\([^-]*\)-.*/\1/p' | sort -uV | tail -n 5) || true
    say "no wheel on $page is for $made_for, $tag and $platform; the last that fit otherwise:" ${others:-none}
    [ ${#remove[@]} = 0 ] || say "what is there does not work all the same: $(shown "${remove[@]}")"
    stop "build k2 from its source (https://k2-fsa.github.io/k2/installation/from_source.html), or take a torch with a wheel"
fi
version=${wheel#k2-}
command=("$PYTHON" -m pip install "k2==${version%%-*}" -f "$page")
grep -qF -- "$wheel#sha256=" <<<"$listed" || say "$page has no hash of $wheel: pip can check nothing but https"
if [ ${#remove[@]} != 0 ]; then shown "${remove[@]}"; fi
shown "${command[@]}"
if [ "$install" = true ]; then
    if [ ${#remove[@]} != 0 ]; then "${remove[@]}"; fi
    "${command[@]}" || stop "pip failed; see above"
    [[ $(installed) == *works ]] || stop "k2 was installed, but cannot be imported: $(shown "$PYTHON" -c 'import k2') says why"
    say "installed"
fi
