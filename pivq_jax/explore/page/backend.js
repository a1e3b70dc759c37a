/**
 * The interface between the page and the model.
 *
 * The page calls a `Backend` and nothing else. `server.js` implements it with requests to
 * `pivq_jax.explore`, and `start.js` gives that to the page; tests give it another one.
 *
 * Shapes: N codes an image, K codebook entries, images of S x S pixels.
 *
 * - A code set is an array of N integers in [0, K). Results of `pair` keep the order of their slots;
 *   whatever takes a set takes it in any order, except for `positional` models, where the place of a
 *   code in the array is its place in the image.
 * - An image is an `ImageData` of S x S pixels, opaque.
 * - Every method may be called while another one runs. A backend may work on one thing at a time.
 * - Every method rejects with a `BackendError`, whose message is one sentence for the page to show:
 *   what is wrong and what to do. An aborted call rejects with the signal's reason.
 */

/**
 * What the presence of a codebook entry in an image tells.
 *
 * @typedef {object} Entry
 * @property {number} group - index in `Model.groups`; -1 if the entry tells nothing beyond chance.
 * @property {string} value - the value of the factor that it tells, such as "bun"; one that looks
 *     like "#f97316" is shown as that colour; "" if there is none.
 * @property {number} right - fraction of the images with the entry that show this value, 0 to 1.
 * @property {number} usual - fraction of all images that show it.
 * @property {number} share - fraction of training images with the entry, 0 to 1.
 */

/**
 * The model, all that stays the same while the page is open; but for the images that one can choose
 * from, which may come later.
 *
 * @typedef {object} Model
 * @property {string} id - short text without spaces that differs for other weights. Links hold it,
 *     so that codes are not shown with a model that they do not belong to.
 * @property {string} title - for the heading, such as "toon_faces, step 7,000".
 * @property {"matching"|"nearest"|"positional"} kind - kind of quantizer: only with `matching` are
 *     the codes of a set distinct, only with `positional` does their order matter.
 * @property {number} imageSize - S.
 * @property {number} numCodes - N.
 * @property {number} codebookSize - K.
 * @property {number} examples - number of images of `example`, 0 if there are none.
 * @property {number[]} opening - two of them to begin with, whose codes show well what codes are;
 *     none if there are fewer than two.
 * @property {string} exampleName - what they are, in the singular: "test image".
 * @property {number} trainingImages - number of images that `recombine` draws from and `nearest`
 *     searches; 0 if the backend has none: the page then leaves out both.
 * @property {boolean} prior - whether it has a prior to `draw` from.
 * @property {number} batch - most sets of one `decode`, at least 1.
 * @property {number} mostExamples - most images of one call of `examples`.
 * @property {number} mostBytes - of a file that a person gives.
 * @property {"factor"|"cluster"} grouping - what groups are: labelled factors, or clusters of
 *     codebook entries.
 * @property {string[]} groups - name of each group, such as "hair" or "cluster 3".
 * @property {Entry[]} entries - K entries.
 * @property {Factor[]} factors - labelled factors that `readFactors` reads and `edit` changes; none
 *     if training images have no labels, codes are `positional`, or the backend has no such edits:
 *     the page then leaves out both.
 * @property {number} psnr - in dB, of the test images of the training as they are decoded; 0 if it is
 *     not known.
 * @property {string} credit - whose images the model was trained on, if they ask for credit: a
 *     sentence with links as in Markdown, [text](https://...); "" if not.
 */

/**
 * A labelled factor of images, such as the colour of the hair.
 *
 * @typedef {object} Factor
 * @property {string} name - such as "hair color".
 * @property {string[]} values - names of its values; one that looks like "#f97316" is shown as that
 *     colour, too.
 * @property {number[]} unseen - indices of values that no labelled image shows: they are not chosen.
 */

/**
 * An image with its codes.
 *
 * @typedef {object} Picture
 * @property {string} name - such as "test image 12"; shown, never interpreted.
 * @property {number[]} codes - its code set, canonical: sorted unless `positional`.
 * @property {ImageData} image - the image that was encoded, cropped and resized as in training.
 */

/**
 * Two code sets, paired as `pivq_jax.sampling.pair_codes` pairs them: codes that both have are
 * paired with themselves, the others one-to-one at minimum total squared distance of their entries.
 *
 * @typedef {object} Pairs
 * @property {number[]} a - the codes of A in canonical order; index n is slot n.
 * @property {number[]} b - the partner of each in B, equal to it where the code is common.
 * @property {number[]} cost - squared distance of each code and its partner.
 */

/**
 * What `nearest` finds.
 *
 * @typedef {object} Nearest
 * @property {Picture} picture - the training image.
 * @property {number} difference - mean absolute difference of pixels in grey levels, 0 to 255.
 * @property {number} searched - number of training images looked at.
 */

/**
 * The interface.
 *
 * @typedef {object} Backend
 * @property {() => Promise<{text: string, fraction: number}>} progress - how far the work is that goes
 *     on while the page is used, and what is done now; the fraction is 1 at the end. The `Model` may
 *     have changed by then.
 * @property {() => Promise<Model>} model - the model as it is now. Called before all else.
 * @property {(start: number, count: number) => Promise<ImageData[]>} examples - images to choose
 *     from, without their codes: `count`, at most `Model.mostExamples`, from index `start` on;
 *     fewer come where `Model.examples` ends.
 * @property {(index: number) => Promise<Picture>} example - encodes one of them, the index in
 *     [0, Model.examples).
 * @property {(file: Blob, name: string) => Promise<Picture>} encode - encodes a person's own image:
 *     its central square, resized as in training. `file` is a PNG, JPEG or WebP file, anything
 *     else is refused; `name` is the name of the file, which becomes the name of the picture.
 * @property {(a: number[], b: number[]) => Promise<Pairs>} pair - pairs two code sets.
 * @property {(sets: number[][], signal?: AbortSignal) => Promise<ImageData[]>} decode - decodes 1
 *     to `Model.batch` code sets: one image a set. The signal ends the call.
 * @property {() => Promise<{a: Picture, b: Picture, pairs: Pairs, codes: number[]}>} recombine -
 *     recombines two different training images, drawn as for samples of the model, for a new face:
 *     the parents, their pairs, and the new set in the order of slots: `codes[n]` is `pairs.a[n]`
 *     or `pairs.b[n]`.
 * @property {() => Promise<Picture>} draw - draws a new face from the prior of the model.
 * @property {(codes: number[], signal?: AbortSignal) => Promise<Nearest>} nearest - finds the
 *     training image that looks most like the decoded set. The signal ends the call.
 * @property {(code: number) => Promise<number[]>} neighbours - all other K - 1 codebook entries by
 *     distance in codebook space, the nearest first.
 * @property {(codes: number[]) => Promise<number[]>} readFactors - reads the factors of the decoded
 *     image of a set: the value of each of `Model.factors` that the image shows, an index into its
 *     values; -1 where none is sure.
 * @property {(codes: number[], factor: number, value: number) => Promise<number[]>} edit - gives a
 *     factor another value, both by index, by replacing the codes that speak against it, as
 *     `TrainedModel.edit` does. The result is in the order of `codes`: entry n is that of
 *     `codes`, or the one that replaces it. Those taken out and put in are paired as in `Pairs`.
 * @property {(codes: number[]) => Promise<{name: string, file: Blob}>} writeCodes - writes a code
 *     set as a file, with a name to save it by.
 * @property {(file: Blob) => Promise<number[]>} readCodes - reads the (first) code set in a file of
 *     `writeCodes`; one of another model is refused.
 */

/** An error with a message for the page to show. */
export class BackendError extends Error {
  constructor(message) {
    super(message);
    this.name = "BackendError";
  }
}
