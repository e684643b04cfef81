import pytest
import torch

from lightning_synthqual.audit.faults import FAULTS, Fault, Source, image_generators, named_faults

PIXELS = [fault for fault in FAULTS.values() if not fault.of_set]
SETS = [fault for fault in FAULTS.values() if fault.of_set]


def smooth(count=6, height=24, width=20, seed=0):
    draw = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand((count, 3, 6, 5), generator=draw)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine.clamp(0, 255).to(torch.uint8)


def grey(images):
    return images[:, :1].expand(-1, 3, -1, -1).contiguous()


def apply(name, images, dose, seed=0):
    return FAULTS[name].apply(images, dose, image_generators(seed, range(len(images))))


def mse(one, other):
    return float((one.double() - other.double()).square().mean())


def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("fault", PIXELS, ids=lambda fault: fault.name)
def test_pixel_faults_grow_with_the_dose_keep_the_images_form_and_do_not_depend_on_the_batch(fault):
    images, kept = smooth(), smooth()
    sizes = []
    for dose in fault.doses:
        faulty = fault.apply(images, dose, image_generators(0, range(6)))
        assert faulty.shape == images.shape
        assert faulty.dtype == torch.uint8
        parts = [fault.apply(images[at : at + 2], dose, image_generators(0, [at, at + 1])) for at in (0, 2, 4)]
        assert torch.equal(torch.cat(parts), faulty)
        sizes.append(mse(faulty, images))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0
    assert torch.equal(images, kept)
    assert torch.equal(fault.apply(images, 0, image_generators(0, range(6))), images)


@pytest.mark.parametrize("fault", PIXELS, ids=lambda fault: fault.name)
def test_grey_images_stay_grey_and_have_no_colour_to_lose(fault):
    images = grey(smooth())
    faulty = fault.apply(images, fault.doses[-1], image_generators(0, range(6)))
    assert torch.equal(faulty, grey(faulty))
    assert torch.equal(faulty, images) == (fault.name in ("hue", "grey"))


@pytest.mark.parametrize("fault", PIXELS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_tiny_images_are_no_special_case(fault, size):
    assert fault.apply(smooth(2, *size), fault.doses[-1], image_generators(0, range(2))).shape == (2, 3, *size)


def test_doses_mean_what_they_say():
    flat = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = apply("noise", flat, 8.0).double()
    assert noisy.std() == pytest.approx(8, rel=0.03)
    point = torch.zeros((1, 3, 41, 41), dtype=torch.uint8)
    point[:, :, 20, 20] = 255
    assert apply("blur", point, 2.0).max() == round(255 / (2 * torch.pi * 4))
    pattern = apply("checkerboard", flat, 0.1).double() - 128
    assert pattern.square().mean().sqrt() == pytest.approx(12.8, rel=0.03)
    assert pattern[0, 0, 1, 1] > pattern[0, 0, 0, 1] == pattern[0, 0, 1, 0] > pattern[0, 0, 0, 0]
    assert len(apply("banding", torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256), 5.0).unique()) == 8
    assert float((apply("occlusion", flat, 0.25) == 0).double().mean()) == 0.25
    assert float(apply("contrast", smooth(1), 0.5).double().std() / smooth(1).double().std()) == pytest.approx(
        0.5, 0.02
    )
    assert int(apply("gamma", flat, 1.0)[0, 0, 0, 0]) == round(128**2 / 255)


def test_images_move_and_are_reflected_at_the_border():
    images = smooth(2)
    moved = apply("shift", images, 2.0)
    assert torch.equal(moved[..., 2:], images[..., :-2])
    assert torch.equal(moved[..., :2], images[..., [2, 1]])
    assert torch.equal(apply("mirror", images, 1.0), images.flip(3))
    square = smooth(1, 20, 20)
    assert torch.equal(FAULTS["rotation"].apply(square, 90.0, image_generators(0, [0])), square.rot90(-1, (2, 3)))
    assert torch.equal(apply("hue", images, 120.0), images[:, [2, 0, 1]])
    assert torch.equal(apply("grey", images, 1.0), grey(images.float().mean(1, keepdim=True).round().to(torch.uint8)))


def test_mirrored_images_of_a_small_share_are_among_those_of_a_larger_one():
    images = smooth(200, 4, 4)
    few, many = ((apply("mirror", images, share) != images).flatten(1).any(1) for share in (0.25, 0.5))
    assert few.sum() == pytest.approx(50, abs=15)
    assert bool((many | ~few).all())


@pytest.mark.parametrize("fault", SETS, ids=lambda fault: fault.name)
def test_set_faults_are_nested_and_hit_the_share_that_the_dose_says(fault):
    groups = torch.arange(40) % 4
    known = {"groups": groups, "reference_count": 30}
    rows = [fault.choose(40, dose, generator(), **known) for dose in (0.25, 0.5)]
    untouched = [Source((("tested", row),)) for row in range(40)]
    assert fault.choose(40, 0, generator(), **known) == untouched
    if fault.name == "mode_drop":
        assert [len(each) for each in rows] == [30, 20]
        assert set(rows[1]) < set(rows[0])
        assert len({int(groups[row.parts[0][1]]) for row in rows[0]}) == 3
        assert len(fault.control(40, 0.5, generator(), **known)) == 20
        return
    hit = [{at for at, row in enumerate(each) if row != untouched[at]} for each in rows]
    assert [len(each) for each in hit] == [10, 20]
    assert hit[0] < hit[1]
    assert fault.control(40, 0.5, generator(), **known) == untouched


def test_set_faults_at_their_ends():
    everything = FAULTS["copying"].choose(40, 1.0, generator(), reference_count=50)
    assert len({row.parts for row in everything}) == 40
    assert {name for row in everything for name, _ in row.parts} == {"reference"}
    assert all(len(set(row.parts)) == 2 for row in FAULTS["blend"].choose(5, 1.0, generator()))
    repeated = [row.parts[0][1] for row in FAULTS["duplication"].choose(40, 0.75, generator())]
    assert sorted(map(repeated.count, set(repeated))) == [4] * 10
    with pytest.raises(ValueError, match="needs `groups`: one group for each of the 4 tested images"):
        FAULTS["mode_drop"].choose(4, 0.5, generator())
    with pytest.raises(ValueError, match="needs at least 2 groups, but there are 1"):
        FAULTS["mode_drop"].choose(4, 0.5, generator(), groups=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="needs at least 1 reference images"):
        FAULTS["copying"].choose(4, 0.5, generator())


def test_a_fault_of_the_users_own_gets_one_image_and_its_generator():
    def grain(images, dose, draws):
        assert images.shape[0] == 1
        return (images + dose * 9 * torch.rand(images.shape, generator=draws)).clamp(0, 255).to(torch.uint8)

    (fault,) = named_faults({"grain": (grain, (0.5, 1))})
    images = smooth()
    whole = fault.apply(images, 1, image_generators(0, range(6)))
    assert torch.equal(fault.apply(images[4:], 1, image_generators(0, [4, 5])), whole[4:])
    assert fault.doses == (0.5, 1)
    fault.try_out(images)


@pytest.mark.parametrize(
    ("own", "error", "words"),
    [
        (
            lambda images, dose, draws: images[..., 1:],
            ValueError,
            r"'own' returned shape \(1, 3, 24, 19\) for images of",
        ),
        (lambda images, dose, draws: images.float(), TypeError, "'own' returned torch.float32 instead of a uint8"),
        (lambda images, dose, draws: None, TypeError, "'own' returned NoneType"),
        (lambda images, dose, draws: images, ValueError, "'own' changed none of 6 images at its largest dose, 1"),
    ],
)
def test_what_is_wrong_with_a_fault_of_the_users_own_is_said(own, error, words):
    (fault,) = named_faults({"own": own})
    with pytest.raises(error, match=words):
        fault.try_out(smooth())


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        (["blurr"], ValueError, "names 'blurr', which is unknown. Known: blur, noise, jpeg"),
        (["blur", "blur"], ValueError, "names 'blur' twice"),
        ([], ValueError, "`faults` is empty"),
        ([3], TypeError, "must hold names or Fault objects, but holds 3"),
        ({"blur": lambda images, dose, draws: images}, ValueError, "callable named 'blur', as a known fault is"),
        ({"blur": 3}, TypeError, r"`faults\['blur'\]` must be a callable"),
        ({"blur": (2.0, 1.0)}, ValueError, "'blur' must be positive and increasing"),
    ],
)
def test_wrong_faults_are_refused(faults, error, words):
    with pytest.raises(error, match=words):
        named_faults(faults)


def test_faults_by_name_with_other_doses_and_as_objects():
    own = Fault("own", (1.0,), "dose", "own", lambda images, dose, draws: 255 - images, own=True)
    assert named_faults() == tuple(FAULTS.values())
    assert named_faults("blur") == (FAULTS["blur"],)
    assert named_faults([own, "noise"]) == (own, FAULTS["noise"])
    assert [fault.doses for fault in named_faults({"blur": [1, 2], "hue": None})] == [(1, 2), FAULTS["hue"].doses]
    assert max(FAULTS["noise"].doses) >= 32
    assert max(FAULTS["copying"].doses) == 1
