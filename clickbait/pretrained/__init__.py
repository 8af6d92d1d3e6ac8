"""Where base models and tokenizers come from: an installed package, a folder, the hub. Needs no torch."""
