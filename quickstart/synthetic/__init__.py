"""What the proofs are about: made-up pictures, clips and texts whose truth is known."""
