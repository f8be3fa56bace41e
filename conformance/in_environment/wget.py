"""A stand-in for the package of this name, which has no wheel. llama.cpp's tests import it to download models, and the
server that they test here needs none."""


def download(url: str, out: str) -> None:
    """Refuse to download anything."""
    raise RuntimeError(f"{url} is not downloaded to {out}: the server under test runs already")
