"""`maskinversion search`"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, ModelError
from ..files import written_whole
from ..tasks.phrases import CLASS_TEMPLATE
from .arguments import QUICK, add_masks, at_least_one, lines_of, named_masks, picture_to_write

if TYPE_CHECKING:
    from ..collection.album import Album
    from ..collection.group import Group
    from ..collection.search import Only, Question, Region, RegionSearch
    from ..collection.sheet import Cell
    from ..collection.table import RegionTable
    from ..models.clip import Clip

GROUPS = ("duplicates", "clusters")
SHOWN = 6  # regions of a group on its sheet
MOST_ROWS = 60  # of a sheet
SECONDS = 5  # between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="a table of regions, as `embed` writes it")
    asked = parser.add_argument_group("what to search for")
    asked.add_argument("--phrase", action="append", default=[], help="such as 'a red car'; may be repeated")
    asked.add_argument("--phrases", type=Path, help="a text file with a phrase a line")
    asked.add_argument("--tokens", type=Path, action="append", default=[], help="what `invert` wrote; may be repeated")
    asked.add_argument("--like", action="append", default=[], metavar="ID", help="a region of the table; may be repeated")
    asked.add_argument("--regions-of", type=Path, metavar="TABLE", help="every region of another table")
    asked.add_argument("--image", type=Path, help="a picture, with the region in --mask")
    add_masks(parser)
    chosen = parser.add_argument_group("which regions to look at")
    chosen.add_argument("--picture", metavar="PATTERN", help="of pictures whose names are like this, such as 'holiday/*.jpg'")
    chosen.add_argument("--label", action="append", default=[], help="with this label; may be repeated")
    chosen.add_argument("--area", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"), help="of the picture, 0..1")
    chosen.add_argument("--top", type=at_least_one, default=10, help="regions to find for each (default: %(default)s)")
    whole = parser.add_argument_group("the table as a whole")
    whole.add_argument("--group", choices=GROUPS, help="regions that are nearly the same, or all regions in clusters of like ones")
    whole.add_argument("--at", type=float, default=0.97, help="duplicates: with at least this cosine (default: %(default)s)")
    whole.add_argument("--count", type=at_least_one, help="clusters: how many (default: the root of half the regions)")
    whole.add_argument("--map", type=picture_to_write, help="a picture to write: like regions lie near one another")
    whole.add_argument("--graph", action="store_true", help="make a graph for quicker searches, once; for millions of regions")
    out = parser.add_argument_group("what comes out")
    out.add_argument("--sheet", type=picture_to_write, help="a picture to write: what was found, outlined")
    out.add_argument("--json", action="store_true", help="print JSON")
    out.add_argument("--pictures", type=Path, help="where the pictures are now (default: where they were)")
    parser.add_argument("--clip", help="the CLIP of the table, for phrases and pictures (default: by the name that the table has)")
    parser.add_argument("--architecture", help="of a weights file, such as ViT-L-14")
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best one here)")
    parser.add_argument("--template", action="append", help=f"what a phrase is put into (default: {CLASS_TEMPLATE!r})")


def run(args: argparse.Namespace) -> None:
    from ..collection.album import Album
    from ..collection.search import Only, RegionSearch
    from ..collection.table import RegionTable

    if bool(args.image) != bool(args.mask):
        raise InputError("a picture and its region go together: give both --image and --mask")
    if args.labels is not None and not args.mask:
        raise InputError("--labels are of a label map given as --mask; for regions that have a label in the table, use --label")
    only = Only(args.picture, args.label, tuple(args.area))
    search = RegionSearch(RegionTable.open(args.table), args.graph, progress("reading tokens"))
    album = Album(search.table, args.pictures)
    questions = asked(args, search)
    if not (questions or args.group or args.map):
        if args.graph:
            return
        raise InputError("there is nothing to search for: give --phrase, --tokens, --like, --regions-of, --image, --group or --map")
    if questions and (args.group or args.map):
        raise InputError("--group and --map are of the table as a whole: leave out what to search for")
    if questions:
        show_found(args, search, album, questions, only)
    else:
        show_whole(args, search, album, only)
    if told := album.told():
        print(f"maskinversion: {told}", file=sys.stderr)


def asked(args: argparse.Namespace, search: RegionSearch) -> list[Question]:
    from ..collection.search import RegionSearch as Search
    from ..collection.table import RegionTable
    from ..tokens import LocalizedTokens

    questions = []
    phrases = args.phrase + (lines_of(args.phrases) if args.phrases else [])
    if phrases or args.image:
        clip = clip_of(args, search.table)
        if phrases:
            questions += search.of_phrases(phrases, clip, args.template or CLASS_TEMPLATE)
        if args.image:
            masks = list(named_masks(args))
            questions += search.of_picture(args.image, [mask for _, mask in masks], clip, [name for name, _ in masks])
    for path in args.tokens:
        questions += search.of_tokens([LocalizedTokens.load(path)], path.stem)
    questions += search.of_regions(args.like) if args.like else []
    if args.regions_of:
        questions += search.of_table(Search(RegionTable.open(args.regions_of)))
    return questions


def clip_of(args: argparse.Namespace, table: RegionTable) -> Clip:
    from .. import load_clip
    from ..collection.table import metadata_of

    source = args.clip or metadata_of(table.parts()[0]).get("clip") or table.made.model
    try:
        return load_clip(source, args.architecture, args.device)
    except ModelError as error:
        if args.clip:
            raise
        raise ModelError(f"{table.folder} was made with {table.made.model}, not found here: give it with --clip") from error


def show_found(args: argparse.Namespace, search: RegionSearch, album: Album, questions: list[Question], only: Only) -> None:
    found = search.nearest(questions, args.top, only)
    if args.json:
        answers = [
            {"question": question.name, "regions": [region.to_dict() for region in regions]}
            for question, regions in zip(questions, found, strict=True)
        ]
        print(json.dumps(answers, indent=1, ensure_ascii=False))
    else:
        for question, regions in zip(questions, found, strict=True):
            print(question.name)
            for region in regions:
                print(f"  {described(region)}")
    if args.sheet:
        from ..collection.sheet import found_rows

        write_sheet(args, found_rows(search, album, questions[:MOST_ROWS], found), len(questions))


def show_whole(args: argparse.Namespace, search: RegionSearch, album: Album, only: Only) -> None:
    from ..collection.group import clusters, near_duplicates

    among = search.chosen(only)
    total = len(search) if among is None else len(among)
    if not total:
        raise InputError(f"no region of {args.table} is left: choose other pictures, labels or areas")
    groups: list[Group] = []
    if args.group == "duplicates":
        groups = near_duplicates(search.tokens, args.at, among, progress("comparing"))
    elif args.group == "clusters":
        groups = clusters(search.tokens, min(total, args.count or max(1, round((total / 2) ** 0.5))), among)
    if args.group:
        ids = search.rows["id"].to_pylist()
        if args.json:
            print(json.dumps([group.to_dict(ids) for group in groups], indent=1))
        else:
            for number, group in enumerate(groups):
                first = search.regions(group.rows[:1], [group.likeness])[0]
                print(f"group {number}: {len(group.rows)} regions, such as {described(first)}")
            if not groups:
                print(f"there are no regions with a cosine of {args.at:g} or more: lower --at")
    if args.sheet and groups:
        from ..collection.sheet import group_rows

        write_sheet(args, group_rows(search, album, groups[:MOST_ROWS], SHOWN), len(groups))
    if args.map:
        from ..collection.atlas import region_map

        drawn = region_map(search, album, among, groups)
        with written_whole(args.map) as path:
            drawn.save(path, **(QUICK if path.suffix == ".png" else {}))
        print(args.map, file=sys.stderr if args.json else sys.stdout)


def write_sheet(args: argparse.Namespace, rows: list[list[Cell]], total: int) -> None:
    from ..collection.sheet import contact_sheet

    with written_whole(args.sheet) as path:
        contact_sheet(rows).save(path, **(QUICK if path.suffix == ".png" else {}))
    more = f" (the first {len(rows)} of {total} rows)" if total > len(rows) else ""
    print(f"{args.sheet}{more}", file=sys.stderr if args.json else sys.stdout)


def described(region: Region) -> str:
    about = region.about
    label = f" {about['label']}" if about["label"] is not None else ""
    return f"{region.score:.3f} {about['id']}{label}, {about['picture']} {about['annotation']}, {about['area']:.1%} of it"


def progress(what: str) -> Callable[[int, int], None]:
    """A callback that says every few seconds how far it is, on the error stream."""
    last = time.monotonic()

    def step(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS:
            last = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    return step
