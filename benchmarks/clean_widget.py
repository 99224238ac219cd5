"""`ImageCleaner` with many pictures: seconds until the first page, for a page turn and for a click, and what is sent to the browser.

    python benchmarks/clean_widget.py             # 5,000 pictures, about a minute on two cores
    python benchmarks/clean_widget.py --n 500

The pictures are blurred noise, 400 x 300 pixels, in three classes; the table beside them is made up. Times are those of Python: the browser
comes on top. Messages are counted by standing in for the connection to the browser; their bytes are those of the JSON text and of what goes beside it.
"""
import argparse, json, os, statistics as st, tempfile, time
from pathlib import Path

os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

import comm, numpy as np, pandas as pd
from PIL import Image
from bearclass.clean.widget import ImageCleaner

sent = []


class Counted(comm.base_comm.BaseComm):
    "A connection that leads nowhere and notes what is sent."
    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        sent.append(len(json.dumps(data, default=str)) + sum(len(b) for b in buffers or ()))


comm.create_comm = Counted


def draw(root, n, seed=0):
    "A table of `n` pictures of noise, no two alike."
    rng,rows = np.random.default_rng(seed),[]
    for i in range(n):
        label = 'black grizzly teddy'.split()[i%3]
        f = root/label/f'{i:05d}.jpg'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)).resize(
            (400, 300),
            Image.BICUBIC).save(f, quality=85)
        p = rng.uniform(.01, .99)
        rows.append(dict(path=f, split='valid' if rng.random()<.2 else 'train', given_label=label, predicted_label=label if p>.5 else 'teddy', p_given=p, p_predicted=max(p, 1-p), loss=-np.log(p),
                         label_quality=p, kind='' if p>.1 else 'likely mislabelled'))
    return pd.DataFrame(rows).sort_values('label_quality', ignore_index=True)


def timed(f):
    sent.clear()
    t = time.perf_counter()
    f()
    return time.perf_counter()-t, len(sent), sum(sent)


def report(what, got):
    s = [g[0] for g in got]
    print(
        f'{what:<42} {st.median(s)*1000:8.0f} ms (worst {max(s)*1000:.0f}, n = {len(s)})   {st.median(g[1] for g in got):4.0f} messages  {st.median(g[2] for g in got)/1000:8.1f} kB')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=5000)
    n = p.parse_args().n
    with tempfile.TemporaryDirectory() as d:
        os.environ['BEARCLASS_CACHE'] = f'{d}/cache'
        root = Path(d)/'bears'
        df = draw(root, n)
        print(
            f'{n:,} pictures, {len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()} cores')
        report('a new cleaner, nothing fingerprinted yet', [timed(lambda: ImageCleaner(df, root))])
        c = ImageCleaner(df, root)
        df = c.issues
        report('first page, no thumbnail made yet', [timed(lambda: c.widget)])
        time.sleep(1)   # the next page is made ahead
        def again(): ImageCleaner(df, root).widget
        report('a new cleaner and its first page again', [timed(again) for _ in range(3)])
        v = c.view
        def turn():
            v.next.click()
            return
        turns = []
        for _ in range(10):
            turns.append(timed(turn))
            time.sleep(.3)
        report('page turn', turns)
        report('a click on keep', [timed(t.keep.click) for t in v.used[:8]])
        report("a click on the model's label", [timed(t.accept.click) for t in v.used[8:14]])
        report('the rest of this page is fine', [timed(v.rest.click)])
        report('undo of that', [timed(v.undo.click)])
        def choose(d, value): d.value = value
        report('another class', [timed(lambda: choose(v.label, l)) for l in ('black', 'grizzly', 'teddy', '')])
        report('another order', [timed(lambda: choose(v.sort, s)) for s in ('loss', 'uncertainty', 'label_quality')])
        c.journal.mark_many([(s, 'keep') for s in df.sha256[100:n*9//10]])
        report('refresh with nine in ten decided', [timed(v.refresh.click)])
        report('a click then', [timed(t.delete.click) for t in v.used[:8]])
        report('preview', [timed(v.look.click)])
        report('apply', [timed(v.apply.click)])
        print(c)


if __name__=='__main__': main()
