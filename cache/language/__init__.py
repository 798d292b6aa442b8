"""What two texts say, word by word: tokens, stems, synonyms, quantities and their alignment. No model."""
