"""The process in which `hub.fetch` downloads: it can be ended at any time, and what it has goes on from there the next time.

Usage: hub_process.py REPOSITORY. It writes what there is, as one line of JSON, reads which files of that are wanted, as another,
and writes where they are. Errors end it, with a line on the standard error.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

CHUNK = 2**20


def main(repository: str) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # which cannot go on where it was
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"), "blobs")
    about = HfApi().model_info(repository, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in about.siblings or []}
    tell({"blobs": str(blobs), "sizes": sizes})
    folder = None
    for name in json.loads(sys.stdin.readline()):
        fetch(repository, name, about.sha, blobs)
        path = Path(hf_hub_download(repository, name))
        folder = path.parents[len(Path(name).parts) - 1]
        tell({"done": name})
    tell({"folder": str(folder)})


def fetch(repository: str, name: str, revision: str | None, blobs: Path) -> None:
    """The file into the cache's blobs, where the hub's library looks for it."""
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # what an interrupt may lose, and the bar may lag behind
    url = hf_hub_url(repository, name, revision=revision)
    found = get_hf_file_metadata(url)
    if not found.etag or (blobs / found.etag).exists():
        return
    blobs.mkdir(parents=True, exist_ok=True)
    partial = blobs / f"{found.etag}.partial"
    tell({"partial": partial.name})
    with FileLock(f"{partial}.lock", timeout=1):
        with partial.open("ab") as file:
            if file.tell() != found.size:
                http_get(found.location or url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=found.size)
        if len(found.etag) == 64 and sha256(partial) != found.etag:
            partial.unlink()
            raise ValueError(f"what came of {name} is damaged; it was deleted")
        os.replace(partial, blobs / found.etag)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tell(what: dict) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    del sys.path[0]  # where there are other modules of ours
    try:
        main(sys.argv[1])
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
