"""FLOPs, MFU, power, carbon and their attribution to requests; pure Python, useful on its own."""
