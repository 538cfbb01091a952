"""What LiteLLM's config.yaml names as the handler of ``metaverify/...`` models."""

from pathlib import Path

from metaverify.policies.integrations.litellm import load_provider

provider = load_provider(Path(__file__).with_name("cascades.toml"))
