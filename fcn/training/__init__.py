"""Training in stages, with Lightning as the engine."""
