"""AutoMix's meta-verifiers: when a cheap tier's answer, verified, is kept, and when a dearer tier is asked."""
