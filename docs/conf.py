"Settings of the site for Sphinx; `make docs` prepares its pages with docs/build.py."
import re, sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent/'tools'))
from readme import settings

cfg = settings()
project = cfg['title']
author = cfg['author']
release = cfg['version']
copyright = author
extensions = ['myst_nb']
myst_enable_extensions = ['dollarmath', 'fieldlist', 'html_image']
myst_heading_anchors = 4
nb_execution_mode = 'off'              # pages show what is saved in them
nb_render_markdown_format = 'gfm'
python_maximum_signature_line_length = 72
smartquotes_action = 'D'               # '' is two quotes
html_theme = 'furo'
html_title = cfg['title']
html_static_path = [str(here/'site.css')]
html_css_files = ['site.css']
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_math_renderer = 'mathml'
toc_object_entries_show_parents = 'hide'


def formula(block):
    "Formulas as MathML: every browser draws it, so no script comes from anywhere."
    def visit(writer, node):
        tex = re.sub(r'\\[Bb]igg?(?![a-z])', '', node.astext())   # MathML's brackets grow by themselves
        writer.body.append(tex2mathml(tex, as_block=block))
        raise nodes.SkipNode
    return visit


def setup(app): app.add_html_math_renderer('mathml', (formula(False), None), (formula(True), None))
