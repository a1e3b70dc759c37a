"""The figures of an evaluation in groups, with the names of docs/metrics.md."""

from pathlib import Path

from pivq_jax.evaluation import figures

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
SPREAD = {"sample_images": 40, "fid": 0.25, "precision": 0.5, "recall": 0.25, "density": 0.75}
METRICS = {
    "step": 60,
    "images": 200,
    "psnr": 12.3456,
    "ssim": 0.5,
    "rfid": 0.125,
    "codes_used": 31,
    "train_seconds": None,
    **SPREAD,
    "coverage": 0.8,
    "real_images": 200,
    "feature_network": "VGG16 (ImageNet), relu4_3",
    "baselines": {
        "training images": {**SPREAD, "fid": 0.001, "coverage": 0.9},
        "averaged pairs": {**SPREAD, "fid": 3.0, "coverage": 0.1},
    },
    "left_out": {"perceptual": "16 pixels are too few"},
}


def test_figures_are_printed_in_groups_with_real_against_real_below_samples(capsys):
    figures.print_metrics(METRICS)
    text = capsys.readouterr().out
    groups = [group.splitlines() for group in text.strip().split("\n\n")]
    assert [group[0] for group in groups] == [
        "Model",
        "Reconstruction of 200 test images",
        "Codes, bits per image",
        "Against 200 test images",
        "Left out, perceptual: 16 pixels are too few",
    ]
    assert [line.split() for line in groups[1][1:]] == [
        ["PSNR,", "dB", "12.3"],
        ["SSIM", "0.5"],
        ["rVGG-FID", "0.125"],
    ]
    header, samples, real, averaged = (line.split("  ") for line in groups[3][1:])
    assert [name for name in header if name.strip()][:2] == ["images", "VGG-FID"]
    assert samples[1] == "samples" and samples[-1].strip() == "0.8"
    assert real[1] == "training images: real against real" and real[-1].strip() == "0.9"
    assert averaged[-1].strip() == "0.1" and len({len(line) for line in groups[3][1:]}) == 1
    assert "None" not in text and "train_seconds" not in text
    figures.print_metrics({"step": 60, "images": 3, "psnr": 1.0, "left_out": {}})
    groups = capsys.readouterr().out.strip().split("\n\n")
    titles = [group.splitlines()[0] for group in groups]
    assert titles == ["Model", "Reconstruction of 3 test images"]


def test_only_the_distance_of_inception_is_called_fid():
    for network, name in (("AlexNet", "AlexNet-FID"), ("Inception-v3 of 2015", "FID")):
        metrics = METRICS | {"feature_network": network}
        assert figures.distribution(metrics).header[2] == name
        assert figures.named(metrics, "Reconstruction").rows[-1][0] == f"r{name}"


def test_the_page_explains_all_names():
    page = DOCS.read_text().replace("_", " ")
    for name in ("psnr", "ssim", "lpips", "rfid"):
        assert figures.NAMES["Reconstruction"][name].partition(",")[0] in page
    for name in ("ceiling_bits", "marginal_bits", "codes_used"):
        assert figures.NAMES["Codes"][name] in page
