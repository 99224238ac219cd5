"""Point every link to our own repository and site to where `settings.ini` says: a fork changes user and branch.

    python tools/links.py

Badges of Colab and Binder, links to GitHub, and the addresses in `pyproject.toml`, which tell where all led before.
"""
import re
from readme import settings, top


def address(text):
    "`name/repository` as `pyproject.toml` has it."
    return re.search(r'^Repository = "https://github\.com/([^"]+)"', text, flags=re.M)[1]


def pointed(text, old, s):
    "A text with its links to `old`, such as `bearclass/bearclass`, led to what the settings name."
    user,repo = old.split('/')
    hosts = r'(github\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh)'
    ours = rf'{hosts}/{re.escape(old)}(?![\w-])'
    at = rf'(/(?:blob|tree|raw)/|(?<=/gh/{re.escape(old)})/)'   # what stands before a branch
    text = re.sub(rf'{ours}{at}[^/?\s"]+', rf"\g<1>/{s['user']}/{s['repo']}\g<2>{s['branch']}", text)
    text = re.sub(ours, rf"\g<1>/{s['user']}/{s['repo']}", text)
    site = rf'{re.escape(user)}\.github\.io/{re.escape(repo)}(?![\w-])'
    return re.sub(site, f"{s['user']}.github.io/{s['repo']}", text)


def changes():
    "{file: text} of all that would be written."
    files = [top/'pyproject.toml', *sorted(top.glob('*.md')), *sorted((top/'nbs').rglob('*.ipynb'))]
    texts = {f: f.read_text(encoding='utf-8') for f in files if '.ipynb_checkpoints' not in f.parts}
    old,s = address(texts[files[0]]),settings()
    new = {f: pointed(t, old, s) for f,t in texts.items()}
    new[files[0]] = re.sub(r'(?m)^branch = ".*"$', f'branch = "{s["branch"]}"', new[files[0]])   # nbdev's
    return {f: t for f,t in new.items() if t!=texts[f]}


if __name__=='__main__':
    for f,t in changes().items():
        f.write_text(t, encoding='utf-8')
        print(f'{f.relative_to(top).as_posix()} now leads where settings.ini says.')
