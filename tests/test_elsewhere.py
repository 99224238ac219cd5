"What servers of others read: Triton's own description of its files, and Ray with two workers."
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bearclass.core import DependencyError
from bearclass.ship.elsewhere import predict_folder_ray, to_triton
from bearclass.ship.predictor import Predictor, predict_folder
from conftest import colour_bundle


@pytest.fixture(scope='module')
def model_config():
    "Triton's `ModelConfig`, from the client's package, without what that needs to talk to a server."
    found = importlib.util.find_spec('tritonclient')
    if not found: pytest.skip('no tritonclient here: pip install tritonclient')
    file = Path(found.submodule_search_locations[0])/'grpc/model_config_pb2.py'
    spec = importlib.util.spec_from_file_location('model_config_pb2', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('vocab', [('red', 'green', 'blue'), ('a "b"', 'گربه', 'back\\slash')])
def test_triton_understands_the_configuration(vocab, model_config, tmp_path):
    import json
    from google.protobuf import text_format
    p = Predictor(colour_bundle(tmp_path/'bundle', vocab))
    model = to_triton(p, tmp_path/'repository', 'colours')
    c = text_format.Parse((model/'config.pbtxt').read_text(encoding='utf-8'), model_config.ModelConfig())
    assert (c.name, c.backend, c.max_batch_size, c.HasField('dynamic_batching'))==('colours', 'onnxruntime', 32, True)
    assert [(i.name, i.data_type, list(i.dims)) for i in c.input]==[('image', model_config.TYPE_FP32, [3, 8, 8])]
    logits, = c.output
    assert (logits.name, list(logits.dims))==('logits', [3])
    assert (model/logits.label_filename).read_text(encoding='utf-8').split('\n')==[*vocab, '']
    told = {k: json.loads(v.string_value) for k,v in c.parameters.items()}
    assert told=={k: p.config[k] for k in 'size method zoom mean std temperature'.split()}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    root,rng = tmp_path_factory.mktemp('elsewhere')/'pictures',np.random.default_rng(0)
    for i in range(90):
        (root/f'{i%3}').mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8)).save(root/f'{i%3}/{i}.png')
    (root/'torn.jpg').write_bytes(b'torn')
    return root


def test_two_workers_of_ray_give_the_same_rows(small_bundle, pictures, tmp_path):
    pytest.importorskip('ray', reason="no Ray here: pip install 'bearclass[ray]'")
    import pandas as pd
    df = predict_folder_ray(small_bundle, pictures, tmp_path/'ray.csv', workers=2)
    plain = predict_folder(small_bundle, pictures, tmp_path/'plain.csv')
    pd.testing.assert_frame_equal(df, plain, check_dtype=False)
    assert len(df)==91 and df.problem.iloc[-1]!=''
    read = [pd.read_csv(tmp_path/f'{name}.csv') for name in ('ray', 'plain')]
    pd.testing.assert_frame_equal(*read)


def test_without_ray_it_says_what_to_install(small_bundle, pictures, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(DependencyError, match=r'bearclass\[ray\]'): predict_folder_ray(small_bundle, pictures)
