"""Every error of the command line is one line and exit status 1; what is printed can be, and what is meant is hinted at."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.cli.main import main
from maskinversion.models.loading import usable_device
from maskinversion.tasks.classify import classify
from maskinversion.tasks.refer import refer
from tests.helpers.small_models import small_clip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    Image.effect_noise((40, 30), 90).convert("RGB").save(folder / "picture.png")
    mask = Image.new("L", (40, 30))
    mask.paste(255, (5, 5, 25, 25))
    mask.save(folder / "mask.png")
    (folder / "file").write_text("no folder")
    (folder / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (folder / "empty.txt").write_text("\n\n")
    (folder / "list.json").write_text("[]")
    return folder


INVERT = ["invert", "picture.png", "--mask", "mask.png", "--out", "out"]
CLASSIFY = ["classify", "picture.png", "--mask", "mask.png", "--iterations", "1"]
CAPTION = ["caption", "picture.png", "--mask", "mask.png"]
COCO = ["eval", "coco", "--annotations", "list.json", "--images", "."]
REFCOCO = ["eval", "refcoco", "--refs", "list.json", "--annotations", "list.json", "--images", "."]
PHRASECUT = ["eval", "phrasecut", "--annotations", "list.json", "--images", "."]
BENCH = ["bench", "--out", "bench"]
CUDA = pytest.param([*INVERT, "--device", "cuda"], "device 'cuda' cannot be used here", marks=pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is one"))  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["--nonsense"], "are required: COMMAND"),
        (["classify"], "are required: image"),
        (["invert", "picture.png"], "are required: --mask, --out"),
        ([*INVERT, "--nonsense"], "unrecognized arguments: --nonsense"),
        ([*INVERT, "--device"], "--device: expected one argument"),
        CUDA,
        ([*INVERT, "--device", "gpu"], "device 'gpu' cannot be used here"),
        ([*INVERT, "--device", "meta"], "device 'meta' cannot be used here"),
        ([*INVERT, "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        ([*INVERT, "--device", ""], "device '' cannot be used here"),
        ([*CLASSIFY, "--device", "gpu"], "device 'gpu' cannot be used here"),
        ([*CAPTION, "--device", "gpu"], "device 'gpu' cannot be used here"),
        ([*CLASSIFY, "--top", "-1"], "argument --top: it is -1; it must be at least 1"),
        ([*CLASSIFY, "--top", "0"], "argument --top: it is 0"),
        ([*CLASSIFY, "--top", "five"], "argument --top: 'five' is not a whole number"),
        ([*CLASSIFY, "--labels", "x"], "argument --labels: 'x' is neither 'all' nor numbers such as 1,15"),
        ([*INVERT, "--labels", "1,,2"], "argument --labels: '1,,2' is neither"),
        ([*INVERT, "--labels", ""], "argument --labels: '' is neither"),
        ([*INVERT, "--labels", "7"], "has no label 7"),
        ([*INVERT, "--mask-by", "colour"], "argument --mask-by: invalid choice: 'colour'"),
        ([*INVERT, "--mask-by", "alpha"], "no alpha"),
        ([*INVERT, "--iterations", "0"], "iterations is 0"),
        ([*INVERT, "--iterations", "ten"], "argument --iterations: invalid int value: 'ten'"),
        ([*INVERT, "--iterations", "9" * 5000], "argument --iterations: invalid int value"),
        ([*INVERT, "--lr", "nan"], "lr is nan"),
        ([*INVERT, "--lr", "-1"], "lr is -1"),
        ([*INVERT, "--alpha", "inf"], "alpha is inf"),
        ([*INVERT, "--layers", "99"], "has 6 blocks"),
        ([*INVERT, "--image-size", "-8"], "image_size"),
        ([*INVERT, "--image-size", "0"], "image_size"),
        ([*INVERT, "--tolerance", "-1"], "tolerance is -1"),
        ([*INVERT, "--fit", "squeeze"], "argument --fit: invalid choice"),
        ([*INVERT, "--precision", "low"], "argument --precision: invalid choice"),
        ([*INVERT, "--clip", ""], "no model called ''"),
        ([*INVERT, "--clip", "local-dir:nowhere"], "nowhere is not a model folder"),
        ([*INVERT, "--clip", "file.safetensors"], "no file file.safetensors"),
        ([*INVERT[:-1], "file"], "file"),
        ([*INVERT[:-1], "file/out"], "file/out"),
        (["invert", "none.png", *INVERT[2:]], "no file none.png"),
        (["invert", ".", *INVERT[2:]], "is a folder"),
        (["invert", "picture.png\nother", *INVERT[2:]], "no file picture.png other"),
        (["invert", "picture\0.png", *INVERT[2:]], "picture"),
        (["classify", "picture.png"], "give the region of the picture with --mask"),
        (["classify", "none.safetensors"], "no file none.safetensors"),
        ([*CLASSIFY, "--phrases", "none.txt"], "the phrases could not be read: there is no file none.txt"),
        ([*CLASSIFY, "--phrases", "."], "the phrases could not be read: there is no file .: it is a folder"),
        ([*CLASSIFY, "--phrases", "latin.txt"], "latin.txt is not a text in UTF-8"),
        ([*CLASSIFY, "--phrase", "cat", "--template", "a photo"], "has no {}"),
        ([*CLASSIFY, "--phrase", "caf\udce9"], "is not a text, or not in Unicode"),
        ([*CLASSIFY, "--list", "nouns"], "argument --list: invalid choice"),
        ([*CAPTION, "--captioner", "none.safetensors"], "none.safetensors"),
        ([*CAPTION, "--how", "loud"], "argument --how: invalid choice"),
        ([*CAPTION, "--how", "beam", "--beams", "0"], "beams is 0"),
        ([*CAPTION, "--count", "-1"], "count is -1"),
        ([*CAPTION, "--length", "0"], "length is 0"),
        ([*CAPTION, "--how", "sample", "--temperature", "nan"], "temperature is nan"),
        ([*CAPTION, "--how", "sample", "--top-p", "2"], "top_p is 2"),
        ([*CAPTION, "--seed", "x"], "argument --seed: invalid int value"),
        (["demo", "--example", "desert"], "argument --example: invalid choice"),
        (["demo", "--out", "file/out"], "file/out"),
        (["doctor", "now"], "unrecognized arguments: now"),
        (["eval"], "are required: FORMAT"),
        (["eval", "ade"], "invalid choice: 'ade'"),
        (["eval", "paper"], "are required: --data"),
        (["eval", "paper", "--data", "nowhere"], "there is no folder nowhere"),
        (["eval", "voc", "--annotations", "list.json", "--images", "."], "there is no file list.json"),
        (["eval", "open-images", "--annotations", "list.json", "--images", "."], "are required: --segments"),
        (COCO[:4], "are required: --images"),
        (COCO, "list.json is not COCO's instances"),
        (REFCOCO, "list.json is not COCO's instances"),
        (PHRASECUT, "has no picture with a region"),
        ([*COCO, "--limit", "0"], "limit is 0"),
        ([*COCO, "--seed", "x"], "argument --seed: invalid int value"),
        ([*COCO, "--methods", "magic"], "argument --methods: invalid choice"),
        ([*COCO, "--mask-radius", "-1"], "mask_radius is -1"),
        ([*COCO, "--mask-radius", "nan"], "mask_radius is nan"),
        ([*COCO, "--mask-quality", "soft"], "argument --mask-quality: invalid choice"),
        ([*COCO, "--loss", "l1"], "argument --loss: invalid choice"),
        ([*COCO, "--fit", "crop"], "argument --fit: invalid choice"),
        ([*BENCH, "--masks", "0"], "masks is 0"),
        ([*BENCH, "--size", "-8"], "size is -8"),
        ([*BENCH, "--iterations", "0"], "iterations is 0"),
        ([*BENCH, "--layers", "0"], "layers is 0"),
        ([*BENCH, "--repeats", "0"], "repeats is 0"),
        ([*BENCH, "--methods", "magic"], "argument --methods: invalid choice"),
        ([*BENCH, "--model", "ViT-B16"], "Did you mean"),
        ([*BENCH, "--reference", "file"], "has no published package"),
        ([*BENCH, "--check", "none.json"], "none.json is not a bench.json"),
        (["bench", "--out", "file"], "file"),
    ],
    ids=lambda value: " ".join(value)[:80].encode("ascii", "backslashreplace").decode() if isinstance(value, list) else "",
)
def test_every_error_is_one_line(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("maskinversion: ") and printed.err.count("\n") == 1
    assert "internal error" not in printed.err and "Traceback" not in printed.err and not printed.out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_said(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)
    tmp_path.chmod(0o500)
    assert main([*INVERT[:-1], str(tmp_path / "out")]) == 1
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_of_phrases_is_not_waited_for(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)
    os.mkfifo(tmp_path / "phrases.txt")
    assert main([*CLASSIFY, "--phrases", str(tmp_path / "phrases.txt")]) == 1
    assert "it is a pipe" in capsys.readouterr().err


def failing(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("a\nb"), "internal error: KeyError: 'a\\nb'; run with --debug for the traceback"),
        (RuntimeError("one\ntwo"), "internal error: RuntimeError: one two; run with --debug for the traceback"),
        (RecursionError(), "internal error: RecursionError: ; run with --debug"),
        (mi.MemoryLimitError("too large"), "too large"),
        (MemoryError(), "there is not enough memory for this: give a smaller picture"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory for this"),
        (torch.OutOfMemoryError("CUDA out of memory"), "there is not enough memory for this"),
        (OSError(28, "No space left on device", "out/tokens"), "out/tokens could not be read or written (No space left on device)"),
        (OSError("odd"), "internal error: OSError: odd"),
        (mi.InputError("caf\udce9.png is gone"), "caf\\udce9.png is gone"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_goes_wrong_is_one_line_and_debug_shows_where(monkeypatch, capsys, error, words):
    monkeypatch.setattr("maskinversion.cli.doctor.run", failing(error))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"maskinversion: {words}") and printed.count("\n") == 1
    for line in (["--debug", "doctor"], ["doctor", "--debug"]):
        assert main(line) == 1
        assert "Traceback (most recent call last)" in (debugged := capsys.readouterr().err) and debugged.endswith(printed)


def test_debug_shows_where_arguments_were_refused(capsys):
    assert main(["classify", "picture.png", "--top", "-1", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr("maskinversion.cli.doctor.run", failing(KeyboardInterrupt()))
    assert main(["doctor"]) == 130 and not capsys.readouterr().err


def test_who_reads_may_stop_and_a_terminal_may_have_few_letters():
    code = "import sys\nfrom maskinversion.cli import main as m\nimport maskinversion.cli.doctor as d\n"
    code += "d.run = lambda args: [print('\\u4f60\\u597d', i, flush=True) for i in range(100000)]\nsys.exit(m.main(['doctor']))"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "\\u4f60\\u597d 0\n"
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == 1


def test_only_one_name_of_a_device_is_tried(monkeypatch):
    assert usable_device("cpu") == torch.device("cpu") == usable_device(torch.device("cpu"))
    monkeypatch.setattr("maskinversion.models.loading.best_device", lambda: torch.device("cpu"))
    assert usable_device(None) == torch.device("cpu")
    with pytest.raises(mi.InputError, match="device 'npu:7' cannot be used here"):
        mi.load_clip("bundled", device="npu:7")


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_phrases_are_read_with_a_byte_order_mark_or_without(files, tmp_path, monkeypatch, capsys, encoding):
    monkeypatch.chdir(files)
    (tmp_path / "phrases.txt").write_text("strawberry\nna\u00efve caf\u00e9\n", encoding=encoding)
    assert main([*CLASSIFY, "--phrases", str(tmp_path / "phrases.txt"), "--json"]) == 0
    (region,) = json.loads(capsys.readouterr().out)
    assert set(region) == {"strawberry", "na\u00efve caf\u00e9"}


def words(count: int) -> str:
    return " ".join(["cat"] * count)  # a token each, and two for the ends


@pytest.mark.parametrize(
    ("texts", "cut"),
    [
        (["a cat"], None),
        ([words(22)], None),  # 24 in all: it just fits
        ([words(23)], 1),
        (["a cat", words(40), words(3), words(24)], 2),
        (["the quick brown fox jumps over it"], None),  # more letters than tokens fit
    ],
    ids=lambda value: str(value)[:30],
)
def test_texts_beyond_the_context_are_warned_of(bundled, texts, cut):
    assert bundled.model.context_length == 24
    if cut is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", mi.InputWarning)
            bundled.encode_text(texts)
        return
    what = "a text is" if cut == 1 else f"{cut} of {len(texts)} texts are"
    with pytest.warns(
        mi.InputWarning, match=f"^{what} longer than bundled reads, and what is beyond 24 tokens is left out: 'cat cat"
    ):
        found = bundled.encode_text(texts)
    assert len(found) == len(texts)


def test_a_tokenizer_that_writes_at_the_end_of_every_row_warns_of_nothing():
    clip = small_clip()
    plain = clip.tokenizer

    def ended(texts, context_length=8):
        numbers = plain(texts, context_length=context_length)
        numbers[:, -1] = 7
        return numbers

    clip.tokenizer = ended
    with warnings.catch_warnings():
        warnings.simplefilter("error", mi.InputWarning)
        clip.warn_of_cut(["a much longer text than it reads"], ended(["a much longer text than it reads"]), ended)


def test_long_phrases_are_said_on_the_command_line(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert main([*CLASSIFY, "--phrase", words(40), "--phrase", words(50)]) == 0
    printed = capsys.readouterr()
    assert "2 of 2 texts are longer than bundled reads" in printed.err and "50%" in printed.out


@pytest.mark.parametrize(
    ("phrases", "hinted"),
    [
        (["cat, dog, croissant"], True),
        (["cat; dog"], True),
        (["\u732b\u3001\u72ac"], True),
        (["cat"], False),
        (["cat, dog", "croissant"], False),
        (["hot dog, sausage", "croissant, roll"], False),
    ],
)
def test_a_list_in_one_line_is_hinted_at(bundled, phrases, hinted):
    token = torch.ones(1, bundled.tower.width_out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", mi.InputWarning)
        classify(token, bundled, phrases)
    assert any("give its phrases one a line" in str(one.message) for one in caught) == hinted
    with warnings.catch_warnings():
        warnings.simplefilter("error", mi.InputWarning)
        refer(token, bundled, phrases)  # one expression is all that it takes


def test_a_phrase_that_is_no_text_is_refused(bundled):
    for phrase in (3, None, b"cat", "caf\udce9"):
        with pytest.raises(mi.InputError, match="is not a text"):
            classify(torch.ones(1, bundled.tower.width_out), bundled, ["cat", phrase])
        with pytest.raises(mi.InputError, match="is not a text"):
            bundled.encode_text([phrase])
