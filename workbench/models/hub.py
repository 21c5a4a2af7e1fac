"""Whether the Hugging Face hub can be asked at all, found out quickly."""

from __future__ import annotations

__all__ = ["hub_answers"]

HUB_SECONDS = 10


def hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be asked for `name`: one request, without the loaders' long retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except HfHubHTTPError:
        return True  # it answered; the loader says what is wrong with the name
    except Exception:  # whatever the network layer of the day raises
        return False
    return True
