"Photos of bears, odd images, pretrained weights, where they are: looked for in BEARCLASS_TEST_DATA or ../shared/data."
import pytest

from conftest import REAL, needs

from bearclass.core import BearclassError
from bearclass.gather.verify import check_images
from bearclass.images import fit, open_rgb


@needs('bears')
def test_sound_photos_are_sound():
    df = check_images(REAL/'bears')
    assert len(df)>400 and (~df.ok).mean()<=.005, df[~df.ok]


@needs('odd_images')
def test_odd_images_get_an_answer_each():
    files = sorted(f for f in (REAL/'odd_images').iterdir() if f.name!='INDEX.md')
    df = check_images(files)
    assert len(df)==len(files)
    reason = dict(zip((f.name for f in df.path), df.reason))
    assert reason['truncated_jpeg.jpg']=='truncated'
    assert reason['avif_hopper.heif']=='not an image'
    assert {reason[n] for n in ('hopper.jpg', 'hopper.webp', 'transparent.png')}=={''}
    assert reason['pil_sample_cmyk.jpg']=='unusual mode'
    for f,ok in zip(df.path, df.ok):
        if ok: assert fit(open_rgb(f), 64).mode=='RGB'
        else:
            with pytest.raises(BearclassError): open_rgb(f)


@needs('odd_images')
def test_exif_orientation_is_applied():
    import numpy as np
    upright = np.asarray(open_rgb(REAL/'odd_images/hopper.jpg'), float)
    for n in 3, 6, 8:
        turned = np.asarray(open_rgb(REAL/f'odd_images/hopper_orientation_{n}.jpg'), float)
        assert np.abs(turned-upright).mean()<12, n


@needs('weights')
def test_real_weights_load_and_know_bears():
    import torch, torchvision
    from bearclass.images import to_array
    from bearclass.learn.weights import find_weights, load_weights
    model = load_weights(torchvision.models.mobilenet_v2(), find_weights('mobilenet_v2', REAL/'weights')).eval()
    photos = sorted((REAL/'bears/black').glob('*.jpg'))[:20]
    if not photos: pytest.skip('no photos beside the weights')
    with torch.no_grad():
        top1 = model(torch.stack([torch.from_numpy(to_array(fit(open_rgb(f), 224))) for f in photos])).argmax(1)
    assert (top1==295).float().mean()>=.8      # ImageNet's class 295 is the American black bear
