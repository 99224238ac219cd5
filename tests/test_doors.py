"Every public function, handed what it does not take: it answers in the house's words, and nothing has changed."
import contextlib, hashlib, io, math, os, shutil, traceback, warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

import bearclass.all as star
from bearclass.clean.cleaner import issue_table
from bearclass.clean.gain import choose_audit
from bearclass.core import BearclassError, InputError
from bearclass.learn.splits import save_split
from bearclass.ship.bundle import check_destination
from conftest import colour_bundle


def picture(path, k, kind):
    rng = np.random.default_rng(100*kind+k)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(60*kind, 60*kind+120, (32, 32, 3), dtype=np.uint8)).save(path)


def new_learner(dls): return star.image_learner(dls, 'tiny_cnn', weights=False, verbose=False)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A small dataset and what lies beside it; the process stands in an empty folder."
    top = tmp_path_factory.mktemp('doors')
    w = SimpleNamespace(top=top/'world', spare=top/'spare')
    w.root,w.empty,w.note,w.bundle = (w.top/n for n in ('bears', 'empty', 'note.txt', 'bundle'))
    for kind,label in enumerate(('black', 'teddy')):
        for k in range(8): picture(w.root/label/f'{k}.png', k, kind)
    w.empty.mkdir()
    (w.top/'here').mkdir()
    w.note.write_text('no picture, no table\n')
    colour_bundle(w.bundle, ('black', 'teddy', 'red'))
    w.files = star.get_image_files(w.root)
    shutil.copytree(w.top, w.spare)
    with pytest.MonkeyPatch.context() as mp:
        mp.chdir(w.top/'here')
        mp.setenv('BEARCLASS_CACHE', str(top/'cache'))
        mp.setenv('BEARCLASS_OFFLINE', '1')
        w.dls = star.from_folder(w.root, size=32, bs=4)
        renew(w)
        yield w


def tree(top):
    "Everything below a folder: {path: (size, time)}; of folders that they are there."
    found = {}
    for folder,_,names in os.walk(top):
        found[folder] = True
        for name in names:
            st = os.stat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = st.st_size,st.st_mtime_ns
    return found


def put_back(w):
    for p in w.top.iterdir():
        if p.name=='here': continue   # the process stands in it
        (shutil.rmtree if p.is_dir() else os.unlink)(p)
    for p in (w.top/'here').iterdir(): (shutil.rmtree if p.is_dir() else os.unlink)(p)
    shutil.copytree(w.spare, w.top, dirs_exist_ok=True)
    w.tree = tree(w.top)


def state(learn):
    "What may not change: the weights, the callbacks, the data."
    h = hashlib.sha256()
    for name,t in learn.model.state_dict().items(): h.update(name.encode()+t.numpy().tobytes())
    return h.hexdigest(), Counter(type(c).__name__ for c in learn.cbs), id(learn.dls)


def wrong_kinds(w):
    return dict(
        none=None, number=3, nan=math.nan, negative=-1, huge=10**30, words='no such thing', empty_text='', nul='a\0b',
        missing=Path('no/such/place'), text_file=w.note, picture=w.files[0], folder=w.root, empty_folder=w.empty,
        nothing=[], things=[None, 3.5, object()], words_list=['x'], mapping={'a': 1}, table=pd.DataFrame(),
        learner=w.learn, dls=w.learn.dls, kind=int, bytes=b'bears')


def calls(w):
    "{function: arguments that it takes}; each in turn becomes wrong, the first by all kinds, the others by some."
    probs = np.tile([.75, .25], (16, 1))
    ev = star.Evaluation(w.files, np.array([0]*8+[1]*8), probs, ['black', 'teddy'])
    cm,ramp = np.array([[8, 0], [8, 0]]),torch.arange(4.)
    issues = pd.DataFrame(dict(
        path=w.files[:2], given_label='black', predicted_label='teddy', p_given=.1, p_predicted=.9, similar_to=None,
        kind=''))
    names = [str(f.relative_to(w.root)) for f in w.files]
    labels = [f.parent.name for f in w.files]
    table = pd.DataFrame(dict(name=names, label=labels))
    order = {f: i for i,f in enumerate(w.files)}
    files,root,learn,new = w.files,w.root,w.learn,w.top/'new'
    web = 'https://example.org/a.jpg'
    return dict(
        Cassette=dict(path=w.note, mode='replay'),
        CleaningJournal=dict(root=root),
        Dataset=dict(root=root),
        FileDeleter=dict(file_paths=files, batch_size=5, root=root),
        GroupSplitter=dict(groups=order, valid_pct=.2, seed=1),
        ImageClassifierCleaner=dict(learn=learn, max_n=2),
        ImageCleaner=dict(source=issues, root=root),
        KFoldSplitter=dict(fold=0, k=5, seed=1),
        LinearClassifier=dict(lr=.5, epochs=1, bs=4, seed=1, positive=1),
        PixelSimilarity=dict(metric='l1', bs=4),
        Predictor=dict(bundle=w.bundle, n_threads=1),
        StratifiedHashSplitter=dict(valid_pct=.2, seed=1),
        TimeSplitter=dict(times=order, valid_pct=.2),
        advise=dict(learn=learn, issues=issues, repeats=1),
        animate_fit=dict(run=star.fit_quadratic(), max_frames=1),
        apply_decisions=dict(root=root, decisions=[]),
        bring_back=dict(root=root, files=None),
        bring_back_test=dict(root=root),
        build_model=dict(arch='tiny_cnn', n_out=2, weights=None, n_in=3, size=32, ps=.5),
        calibration_table=dict(ev=ev, n_bins=10),
        check_image=dict(path=files[0], min_side=24),
        check_images=dict(root=root, n_workers=1, min_side=24),
        checked=dict(splitter=star.RandomSplitter()),
        class_table=dict(ev=ev),
        classifier_app=dict(predictor=w.bundle),
        cleaning_gain=dict(learn=learn, root=root, on='validation', refits=1),
        cleaning_page=dict(issues=issues, path=new.with_suffix('.html'), root=root, n=2),
        compare_bundles=dict(a=w.bundle, b=w.bundle, root=root),
        compare_models=dict(a=ev, b=ev, alpha=.05),
        compare_resizes=dict(img=files[0], size=32, min_scale=.3, n_random=1),
        confusion_matrix=dict(targs=[0, 1], preds=[1, 1], n_classes=2),
        convert_learner=dict(pkl=w.note, path=new, golden=files),
        datasheet=dict(root=root, answers={}),
        diagnose=dict(learn=learn),
        digits_folder=dict(dest=new, digits=(3, 7), limit=2),
        distributed=dict(learn=learn),
        download=dict(results=[web], root=root, label='black'),
        download_images=dict(dest=root/'black', urls=[web], max_pics=1),
        download_url=dict(url=web, dest=w.empty, timeout=1.),
        draw_bears=dict(root=new, n_per_class=1, seed=1, size=64),
        evaluate=dict(learn=learn, ds_idx=1),
        evaluate_bundle=dict(bundle=w.bundle, root=root, only_valid=False),
        explain_cell=dict(text='x = 1'),
        export_bundle=dict(learn=None, path=''),
        find_duplicates=dict(root=root, threshold=.95, certain=.97, n_workers=1),
        first_filters=dict(model=learn.model),
        fit_line=dict(x=torch.stack([ramp, ramp*0+1], 1), y=ramp, lr=.1, n_steps=1),
        fit_quadratic=dict(t=ramp, y=ramp, lr=.1, n_steps=1),
        forget=dict(root=root, target=files[0], dry_run=True),
        from_csv=dict(path=root, csv=table, fn_col=0, label_col=1, valid_col=None, size=32),
        from_folder=dict(root=root, size=32, valid_pct=.2, seed=1, bs=4, num_workers=0),
        from_img2dataset=dict(shards=w.empty, root=root),
        from_lists=dict(path=root, fnames=files, labels=labels, size=32),
        from_name_func=dict(path=root, fnames=files, label_func=star.parent_label),
        from_name_re=dict(path=root, fnames=files, pat=r'(\w+)/\d+.png$'),
        gather_images=dict(root=root, classes={'black': 'black bear'}, n=1, provider='drawn'),
        get_image_files=dict(path=root, recurse=True, folders=None),
        grad_cam=dict(learn=learn, img=files[0], cls=0, layer=None),
        heal=dict(trouble='KeyError: 1'),
        image_block=dict(size=32, valid_pct=.2, seed=1, method='crop', min_scale=.5),
        image_learner=dict(dls=learn.dls, arch='tiny_cnn', weights=False, metrics=(), device='cpu'),
        image_stats=dict(root=root),
        image_tfms=dict(size=32, method='crop', zoom=None, min_scale=.5),
        inspect_bundle=dict(bundle=w.bundle),
        label_issues=dict(learn=learn, method='auto', folds=2, seed=1),
        launch_training=dict(fn=None),
        leaks=dict(dups=star.find_duplicates(root, n_workers=1), train=files[:4], valid=files[4:]),
        load_digits_3_7=dict(path=root),
        look_at_your_data=dict(root=root),
        merge_datasets=dict(roots=[root, w.empty], dest=new),
        merge_decisions=dict(sources=[root, w.empty], min_votes=2, root=root),
        most_confused=dict(cm=cm, vocab=['black', 'teddy'], min_val=1),
        mouse_track_image=dict(x=[0, 1], y=[0, 1], t=[0, 1], size=32),
        normalise=dict(source=root, dest=new),
        open_rgb=dict(source=files[0], max_pixels=10**6),
        open_test=dict(model=learn, root=root),
        p_value=dict(x=[1., 2, 3, 4], y=[2., 1, 4, 3], method='formula', n_worlds=10, seed=1),
        picture_folder=dict(src=w.empty, dest=new, picture=star.spectrogram_image),
        plot_advice=dict(a=None),
        plot_calibration=dict(table=star.calibration_table(ev)),
        plot_class_counts=dict(df=star.image_stats(root)),
        plot_cleaning_gain=dict(gain=None),
        plot_confusion_matrix=dict(cm=cm, vocab=['black', 'teddy'], show='counts'),
        plot_filters=dict(filters=star.first_filters(learn.model)),
        plot_function=dict(f=abs, tx='x', min=0, max=1),
        plot_grad_cam=dict(picture=np.zeros((4, 4, 3)), heat=np.zeros((4, 4))),
        plot_odd_ones=dict(df=star.image_stats(root), n=2, ncols=2),
        plot_patches=dict(patches={0: []}),
        plot_report=dict(report=None),
        plot_top_losses=dict(worst=star.top_losses(ev, 2), ncols=2),
        predict_folder=dict(bundle=w.bundle, folder=root, csv=None, bs=4),
        practical_effect=dict(places={'here': (10, 40)}, generations=1, cases=10),
        put_away_test=dict(root=root, pct=.1, seed=1),
        quarantine=dict(files=files[:1], root=root, max_share=.2),
        quick_tune=dict(learn=learn, C=.01, bs=4),
        read_manifest=dict(root=root),
        read_report=dict(root=root),
        resize_folder=dict(src=root, dest=new, max_side=16, quality=90),
        retry_failed=dict(root=root, reasons=None),
        save_decisions=dict(path=new, rows=[]),
        search_images=dict(term='black bear', max_images=2, provider='drawn', license=None, min_size=16),
        search_images_bing=dict(term='black bear', max_images=2),
        search_images_ddg=dict(term='black bear', max_images=2),
        serve_app=dict(bundle=None),
        show_augmentations=dict(img=files[0], size=32, n=1, seed=1),
        show_checked=dict(df=star.check_images(root, n_workers=1), n=2),
        show_disagreements=dict(disagreements=None, n=2),
        show_duplicates=dict(dups=star.find_duplicates(root, n_workers=1), n=2),
        show_issues=dict(issues=issues, n=2),
        show_preds=dict(preds=torch.rand(20)),
        show_results=dict(results=None),
        simulate_slopes=dict(n_cities=5, n_worlds=5, slope=0., seed=1),
        spectrogram_image=dict(spec=np.eye(4), size=4),
        split_by_hash=dict(files=files, valid_pct=.2, seed=1),
        split_table=dict(files=files, side=[True]*8+[False]*8),
        stress=dict(bundle=w.bundle, files=files[:2], n=1),
        summary=dict(ev=ev),
        tiny_cnn=dict(weights=None),
        to_img2dataset=dict(what=[web], path=new.with_suffix('.jsonl'), label='black', per_shard=10),
        top_losses=dict(ev=ev, k=1),
        top_patches=dict(learn=learn, layer='0.0', channel=0, n=1, files=files[:2]),
        to_learner=dict(bundle=w.bundle, dls=learn.dls),
        torchrun_command=dict(script=w.note, n_procs=1, n_machines=1),
        undo_quarantine=dict(root=root, files=None),
        verify_images=dict(fns=files[:2], max_workers=1),
        vision_learner=dict(dls=learn.dls, arch='no such network'),
        write_credits=dict(root=root),
    )


# the course's own lines, as short as a lesson has them: what Python says of their operands is the answer
LINES = set('apply_step is_3 mnist_distance mse sgd_step train_epoch'.split())
# data, aliases and fastai's; names of another year have tests of their own
ELSEWHERE = set('''doc doctor untar_data Bundle Evaluation BearclassError TrainingError gv image_input
    cnn_learner image_cat image_dog'''.split())
# they make something of almost anything, slowly
MAKERS = 'digits_folder draw_bears load_digits_3_7 animate_fit'.split()
SOME = 'none negative huge words nul things mapping table'.split()


def ours():
    home = {n: getattr(getattr(star, n), '__module__', None) for n in star.__all__}
    return {n for n,module in home.items() if str(module).startswith('bearclass') and 'learn.course' not in module}


def outcome(f, kwargs):
    "'works', 'told', or where it came out raw."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: f(**kwargs)
        except BearclassError: return 'told'
        except Exception as e:
            return f'{type(e).__name__}: {str(e)[:90]} ({traceback.extract_tb(e.__traceback__)[-1].name})'
        finally: plt.close('all')
    return 'works'


def fed(w, name):
    "(argument, kind, all arguments) for a function."
    for i,arg in enumerate(w.calls[name]):
        for kind,value in wrong_kinds(w).items():
            fits = callable(value) and arg in ('arch', 'fn', 'f', 'label_func', 'picture', 'splitter', 'train')
            fits |= value is w.learn and name in ('classifier_app', 'serve_app')   # which go to work with it
            if (i==0 or kind in SOME) and not fits: yield arg, kind, value


NAMES = sorted(ours()-LINES-ELSEWHERE)


def tried(w, name, arg, value):
    "What comes of one wrong argument; where it was one to work with, all is put back afterwards."
    said = outcome(getattr(star, name), {**w.calls[name], arg: value})
    disk,learner = tree(w.top)!=w.tree,'learn' in w.calls[name] and state(w.learn)!=w.state
    if disk: put_back(w)
    if learner: renew(w)
    return said if said=='works' or not (disk or learner) else f'{said}, and something has changed'


def renew(w):
    w.learn = new_learner(w.dls)
    w.calls,w.state,w.tree = calls(w),state(w.learn),tree(w.top)


@pytest.mark.parametrize('name', NAMES)
def test_a_wrong_kind_is_told_and_changes_nothing(world, name):
    said = {(arg, kind): tried(world, name, arg, value) for arg,kind,value in fed(world, name)}
    assert not {k: v for k,v in said.items() if v not in ('works', 'told')}


words = st.text(max_size=9)
values = st.none() | st.integers() | st.floats() | words | st.binary(max_size=9)
values |= st.lists(st.none() | st.floats() | words, max_size=3) | st.dictionaries(words, st.integers())


@settings(derandomize=True, deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted({*NAMES}-{*MAKERS})), value=values)
def test_any_value_is_told_or_works(world, name, value):
    assert tried(world, name, next(iter(world.calls[name])), value) in ('works', 'told')


def test_arguments_that_are_none_at_all_are_pythons_to_tell(world):
    for call in star.evaluate, lambda: star.evaluate(world.learn, dx=1), lambda: star.Dataset(world.root, True, 1):
        with pytest.raises(TypeError, match='missing|unexpected|takes'): call()


def test_learners_of_points(world):
    "Whose labels no head can be fitted to in one go."
    block = star.DataBlock(
        (star.ImageBlock, star.PointBlock), get_items=star.get_image_files, get_y=lambda f: star.tensor([[3., 4.]]),
        splitter=star.RandomSplitter(seed=1), item_tfms=star.Resize(32))
    learn = star.image_learner(block.dataloaders(world.root, bs=4), 'tiny_cnn', weights=False, verbose=False, n_out=2)
    with pytest.raises(InputError, match='points'): star.quick_tune(learn)


def test_encoded_labels_are_no_words(world):
    table,block = world.calls['from_csv']['csv'],star.MultiCategoryBlock(encoded=True, vocab=['black', 'teddy'])
    with pytest.raises(InputError, match='encoded'): star.from_csv(world.root, table, size=32, y_block=block)
    hot = [[int(f.parent.name==v) for v in ('black', 'teddy')] for f in world.files]
    dls = star.from_lists(world.root, world.files, hot, size=32, y_block=block)
    assert dls.one_batch()[1].shape[1]==2


def test_a_learner_from_a_table_knows_its_files(world, capsys):
    "Wherever its items are rows and no paths."
    table = world.calls['from_csv']['csv']
    learn = new_learner(star.ImageDataLoaders.from_df(
        table, world.root, valid_pct=.3, seed=1, item_tfms=star.Resize(32), bs=4))
    kept = save_split(world.top/'kept.txt', learn.dls).read_text().split()
    valid = {world.root/name for name in kept}
    assert len(kept)==4 and valid<=set(world.files)
    assert set(choose_audit(learn))==valid
    with learn.no_bar(): assert set(issue_table(star.Interpretation.from_learner(learn)).path)==valid
    assert star.top_patches(learn, '0.0', 0, n=1)[0][0].file in world.files
    star.put_away_test(world.root)
    assert len(star.open_test(learn, world.root).files)==2
    put_back(world)


def test_a_bundle_with_what_a_file_manager_left_can_be_replaced(world):
    (world.bundle/'.DS_Store').write_bytes(b'x')
    check_destination(world.bundle, replace=True)
    (world.bundle/'notes.txt').write_text('mine')
    with pytest.raises(InputError, match='other files'): check_destination(world.bundle, replace=True)
    put_back(world)


def test_a_network_is_no_architecture(world):
    with pytest.raises(InputError, match='arch=ResNet'): star.image_learner(world.learn.dls, star.resnet18())
