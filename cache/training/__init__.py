"""How score and shipped calibration are made: hand-written families of questions, augmented, split by domain."""
