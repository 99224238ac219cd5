"""Fail when `bearclass/*.py` or `README.md` is not what the notebooks give: export them elsewhere and compare.

    python tools/check_export.py
"""
import difflib, shutil, subprocess, sys, tempfile
from pathlib import Path

top = Path(__file__).resolve().parent.parent


def texts(folder):
    "{relative name: text} of the package's modules."
    return {f.relative_to(folder).as_posix(): f.read_text(encoding='utf-8') for f in sorted(folder.rglob('*.py'))}


def fresh_export(tmp):
    "Export the notebooks into an empty package in `tmp`."
    for name in 'nbs', 'pyproject.toml', 'settings.ini':
        src = top/name
        if src.is_dir(): shutil.copytree(src, tmp/name, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
        else: shutil.copy(src, tmp/name)
    (tmp/'bearclass').mkdir()
    shutil.copy(top/'bearclass/__init__.py', tmp/'bearclass/__init__.py')   # holds the version
    subprocess.run([sys.executable, '-c', 'import nbdev; nbdev.nbdev_export()'], cwd=tmp, check=True)
    return texts(tmp/'bearclass')


def main():
    with tempfile.TemporaryDirectory() as d: want = fresh_export(Path(d))
    have = texts(top/'bearclass')
    wrong = [n for n in sorted({*want, *have}) if want.get(n)!=have.get(n)]
    for n in wrong:
        a,b = (o.get(n, '').splitlines() for o in (have, want))
        diff = difflib.unified_diff(a, b, f'bearclass/{n}', 'from the notebook', lineterm='', n=1)
        print(*list(diff)[:20], sep='\n')
    from readme import make_readme
    if make_readme()!=(top/'README.md').read_text(encoding='utf-8'): wrong.append('README.md')
    from links import changes
    wrong += [f'{f.relative_to(top).as_posix()} (its links)' for f in changes()]
    if wrong: sys.exit(f"Not what the notebooks give: {', '.join(wrong)}. Edit the notebook, then run `make export`.")
    print(f'{len(have)} modules and README.md are what the notebooks give.')


if __name__=='__main__': main()
