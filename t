Seeds 0 to 2 of the five above, with one draw of pairs of the first 1,000 training images, where the evaluation
has 10,000, so compare rows of this table alone. *New* is the mean absolute difference of pixels (of 255) from the
reconstruction of the nearer parent.
