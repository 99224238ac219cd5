"Several processes at once, really started: what they learn, what they count, and how they end."
import logging, os, shlex, signal, socket, subprocess, sys, threading, time
from pathlib import Path
import pytest
import psutil
from bearclass.core import InputError
from bearclass.samples.datasets import digits_folder
from bearclass.learn.launch import LaunchError, launch_training, torchrun_command

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform!='linux', reason='processes are started for real on Linux only')


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    return digits_folder(tmp_path_factory.mktemp('launch')/'digits', digits=(3, 5, 8), limit=50)/'train'


def train_exactly(root, bs, valid_pct=.3):
    "A training without chance, in double precision; what came of it, and what else went on."
    import torch
    from torch import nn
    from fastai.callback.tracker import SaveModelCallback
    from fastai.layers import Lambda
    from fastai.learner import Learner
    from fastai.metrics import F1Score, error_rate
    from fastai.torch_core import set_seed
    from fastai.data.transforms import RandomSplitter
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.launch import distributed
    torch.set_num_threads(1)
    set_seed(3)
    dls = from_folder(root, size=28, bs=bs, valid_pct=valid_pct, augment=False)
    model = nn.Sequential(
        Lambda(lambda x: x.double()), nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3)).double()
    learn = Learner(dls, model, metrics=[error_rate, F1Score(average='macro')],
                    path=Path(root).parent, model_dir=f'models_{bs}',
                    splitter=lambda m: [list(m[:3].parameters()), list(m[3:].parameters())])
    with distributed(learn):
        learn.fit_one_cycle(3, 3e-2, cbs=SaveModelCallback(fname='best'))
        learn.freeze()
        learn.fit(1, 1e-3)
        values = [list(v) for v in learn.recorder.values]
        preds,targs = learn.get_preds()
    alone = learn.validate()                       # in each process for itself, all pictures
    saved = learn.save('last')
    weights = {k: v.clone() for k,v in learn.model.state_dict().items()}
    found = dict(weights=weights, values=values, preds=preds, targs=targs, alone=list(alone),
                 n_valid=len(dls.valid_ds), saved=saved, model_type=type(learn.model).__name__, refused=[])

    def refused(bs, lr=1e-3, **kw):
        flat = nn.Sequential(nn.Flatten(), nn.Linear(28*28*3, 3))
        dls = from_folder(root, size=28, bs=bs, augment=False, **kw)
        other = Learner(dls, flat, loss_func=nn.CrossEntropyLoss())
        try:
            with distributed(other): other.fit(1, lr)
        except InputError as e: found['refused'].append(str(e))

    refused(64)                                    # more than there are for one step
    if torch.distributed.is_initialized():
        torch.manual_seed(torch.distributed.get_rank())
        refused(8, splitter=RandomSplitter())      # each process its own split
        refused(8, lr=1e-3*(1+torch.distributed.get_rank()))
        try: launch_training(print)
        except InputError as e: found['refused'].append(str(e))
        found['all_weights'] = [None]*torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found['all_weights'], weights)
    return found


@pytest.fixture(scope='module')
def two(digits): return launch_training(train_exactly, digits, 4, n_procs=2, cpu=True)


@pytest.fixture(scope='module')
def one(digits, one_thread): return launch_training(train_exactly, digits, 8, n_procs=1)


def test_both_processes_have_the_same_weights(two):
    import torch
    a,b = two['all_weights']
    assert all(torch.equal(a[k], b[k]) for k in a) and len(a)==6


def test_two_processes_learn_what_one_learns(one, two):
    import torch
    for k,w in one['weights'].items(): torch.testing.assert_close(two['weights'][k], w, atol=1e-8, rtol=1e-6)
    for a,b in zip(one['values'], two['values']): assert a==pytest.approx(b, abs=5e-3)


def test_every_validation_picture_counts_once(one, two):
    import torch
    assert len(two['preds'])==len(two['targs'])==two['n_valid']
    assert torch.equal(one['targs'], two['targs'])                 # in the order of the set
    torch.testing.assert_close(one['preds'], two['preds'], atol=2e-3, rtol=1e-2)
    assert two['values'][-1][1:]==pytest.approx(two['alone'], abs=1e-5)   # loss, error rate, F1: as counted by one


def test_impossible_trainings_are_refused(one, two):
    few,split,drift,nested = two['refused']
    assert 'for 2 processes with bs=64' in few and 'fewer processes' in few
    assert 'another split' in split
    assert 'drifted apart' in drift
    assert 'one launch at a time' in nested
    assert one['refused']==[]   # fastai itself trains on no batch; that is not for this page to judge


def test_a_killed_process_is_named_and_none_is_left(new_children):
    def die():
        import torch
        if os.environ['RANK']=='1': os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.barrier()
    with pytest.raises(LaunchError, match='process 1 was ended by SIGKILL'): launch_training(die, n_procs=2, cpu=True)
    assert not new_children()


def test_who_waits_too_long_ends_it_and_tells_where(capsys, new_children):
    def fall_silent():
        import subprocess, torch
        print('begun', flush=True)
        if os.environ['RANK']=='1':
            subprocess.Popen(['sleep', '1000'])    # what a process has started goes with it
            time.sleep(1000)
        torch.distributed.barrier()
    with pytest.raises(LaunchError, match='process 0 stopped with') as e:
        launch_training(fall_silent, n_procs=2, cpu=True, timeout=15)
    assert 'in fall_silent' in str(e.value) and capsys.readouterr().out=='begun\n'
    assert not new_children()


def test_signals_and_log_are_as_before():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],logging.root.manager.disable
    launch_training(lambda: None, n_procs=2, cpu=True)
    assert ([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], logging.root.manager.disable)==before


def test_a_result_that_cannot_travel_is_an_error_and_no_port_is_needed(monkeypatch, new_children):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))                   # a port in use, and variables that point to it
        monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
        monkeypatch.setenv('MASTER_PORT', str(s.getsockname()[1]))
        with pytest.raises(LaunchError, match="cannot pickle '_thread.lock'"):
            launch_training(lambda: threading.Lock(), n_procs=2, cpu=True)
    assert not new_children()


SCRIPT = '''
import os, sys, time
from pathlib import Path
from bearclass.learn.launch import launch_training

def add(folder):
    import torch
    Path(folder, f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    n = torch.tensor([float(os.environ['RANK']) + 1])
    torch.distributed.all_reduce(n)
    print('the sum is', n.item(), flush=True)
    if len(sys.argv)>2: time.sleep(1000)
    return n.item()

if __name__=='__main__':
    came_back = launch_training(add, sys.argv[1], n_procs=2, cpu=True)
    Path(sys.argv[1], f"{os.environ.get('RANK', 'main')}.came_back").write_text(str(came_back))
'''


@pytest.fixture
def script(tmp_path):
    (tmp_path/'add.py').write_text(SCRIPT)
    return tmp_path/'add.py'


def start(args):
    "Python on the CPU, as a process."
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES':'', 'OMP_NUM_THREADS':'1'}
    return subprocess.Popen([sys.executable, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def torchrun(command):
    "A torchrun command as a process, without the need for torchrun on the path."
    return start(['-m', 'torch.distributed.run', *shlex.split(command)[1:]])


def test_the_same_script_under_torchrun(script, tmp_path):
    p = torchrun(torchrun_command(script, 2, args=(tmp_path,)))
    out,err = p.communicate(timeout=120)
    assert p.returncode==0, err
    assert out.count('the sum is 3.0')==1          # process 0 alone prints from inside
    came_back = [(tmp_path/f'{rank}.came_back').read_text() for rank in range(2)]   # files: two may print at once
    assert came_back==['3.0', 'None']


def test_two_machines_played_by_one(script, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = torchrun_command(script, 1, n_machines=2, host='127.0.0.1', port=port, args=(tmp_path,))
    machines = [torchrun(command) for _ in range(2)]
    outs = [p.communicate(timeout=120) for p in machines]
    assert [p.returncode for p in machines]==[0, 0], outs
    assert ''.join(o for o,_ in outs).count('the sum is 3.0')==1


def test_the_processes_end_with_the_one_that_started_them(script, tmp_path):
    p = start([str(script), str(tmp_path), 'wait'])
    assert p.stdout.readline()=='the sum is 3.0\n'
    children = [psutil.Process(int((tmp_path/f'{r}.pid').read_text())) for r in range(2)]
    p.kill()
    p.communicate(timeout=20)
    assert not psutil.wait_procs(children, timeout=10)[1]
