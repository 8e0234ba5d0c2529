"""Collections of regions: load a table, search it, add to it, and see all of it as a map."""

import json
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.collection.album import Album, View
from ..maskinversion.collection.atlas import MOST, region_map
from ..maskinversion.collection.gather import add_regions
from ..maskinversion.collection.group import Group, clusters, near_duplicates
from ..maskinversion.collection.search import Only, Question, Region, RegionSearch
from ..maskinversion.collection.sheet import contact_sheet, found_rows
from ..maskinversion.collection.table import MANIFEST, RegionTable
from ..maskinversion.compute.memory import check_room
from ..maskinversion.pictures import read_mask
from ..maskinversion.tasks.phrases import CLASS_TEMPLATE
from .support.convert import pair
from .support.files import NOTHING_FOUND, bases, inside, relative, stamp, written_name
from .support.managed import ManagedClip
from .support.progress import counter, warnings_told, with_shown
from .support.types import COLLECTION_CATEGORY, ClipSocket, RegionSockets, RegionTableSocket, Tokens, TokensSocket
from .support.words import one_a_line, sentences
from .token_files import OUTPUT, located

TABLES = ("tables of regions", "Save Regions to Table or `maskinversion embed`")
PICTURES = "region_pictures"  # of ComfyUI's folders, as extra_model_paths.yaml names them: where pictures may be, too
NOT_GROUPED, DUPLICATES, CLUSTERS = "none", "near-duplicates", "clusters"
SHOWN = 10  # regions that the text on the node tells


class LoadRegionTable(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadTable",
            display_name="Load Region Table",
            category=COLLECTION_CATEGORY,
            description="Opens a table of regions of many pictures, as `maskinversion embed` writes it, to be searched.",
            search_aliases=["region collection", "vector database", "load embeddings", "image search"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=found_tables() or [NOTHING_FOUND],
                    tooltip="A table in ComfyUI's input or output folder. Press R to refresh the list.",
                )
            ],
            outputs=[
                RegionTableSocket.Output(display_name="table", tooltip="For Search Regions and Map of Regions."),
                io.Int.Output(display_name="count", tooltip="How many regions there are."),
                io.String.Output(display_name="clip", tooltip="Which CLIP their tokens are of."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str) -> tuple:
        return folder, stamp(located(folder, *TABLES))

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        with warnings_told() as told:
            search = RegionSearch(RegionTable.open(located(folder, *TABLES)), progress=counter(cls.hidden.unique_id))
        return with_shown(search, len(search), search.table.made.model, told=told)


class SaveRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSaveRegions",
            display_name="Save Regions to Table",
            category=COLLECTION_CATEGORY,
            description="Adds regions to a table in ComfyUI's output folder, with copies of their pictures, to be searched later.",
            search_aliases=["collect regions", "index images", "add to collection"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the tokens are of."),
                io.MultiType.Input("mask", types=RegionSockets, tooltip="The masks, boxes or SEGS that the tokens are of."),
                TokensSocket.Input("tokens", tooltip="From MaskInversion, of these pictures and masks."),
                io.String.Input(
                    "name",
                    default="tables/regions",
                    tooltip="Of the table: a folder in the output folder. What it has of the same picture is replaced.",
                ),
                io.String.Input(
                    "labels", multiline=True, default="", optional=True, tooltip="What each region is, one a line. Empty: none."
                ),
                RegionTableSocket.Input(
                    "after", optional=True, tooltip="From another Save Regions to Table, which shall be done first."
                ),
            ],
            outputs=[
                RegionTableSocket.Output(display_name="table", tooltip="All that it has by now, for Search Regions."),
                io.Int.Output(display_name="count", tooltip="How many regions that is."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        mask: object,
        tokens: Tokens,
        name: str,
        labels: str = "",
        after: RegionSearch | None = None,
    ) -> io.NodeOutput:
        base = folder_paths.get_output_directory()
        folder = Path(base, written_name(name, base, "name"))
        with warnings_told() as empty:
            pairs = pair(image, mask, leave_out_empty=True)  # as MaskInversion may have
        if len(pairs) != len(tokens):
            raise InputError(f"the tokens are of {len(tokens)} pictures, and there are {len(pairs)}: connect those they are of")
        total = sum(map(len, tokens))
        lines = one_a_line(labels, total) if labels.strip() else []
        if lines and len(lines) != total:
            raise InputError(f"there are {total} regions and {len(lines)} labels: write one for each, one a line")
        with warnings_told() as told:
            for one, (picture, masks) in zip(tokens, pairs, strict=True):
                own, lines = lines[: len(one)], lines[len(one) :]
                table = add_regions(folder, one, picture, [read_mask(mask) for mask in masks], own)
            search = RegionSearch(table)
        words = f"{total} regions added to {folder.relative_to(base).as_posix()}, which has {len(search)}"
        return with_shown(search, len(search), text=words, told=[*empty, *told])


class SearchRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSearch",
            display_name="Search Regions",
            category=COLLECTION_CATEGORY,
            description="Finds the regions of a table that are most like a token, or like what a phrase says.",
            search_aliases=["find similar", "image search", "nearest neighbours", "retrieve", "text to image search"],
            inputs=[
                RegionTableSocket.Input("table", tooltip="From Load Region Table."),
                TokensSocket.Input("tokens", optional=True, tooltip="What to search for. Of the CLIP that the table is of."),
                ClipSocket.Input("clip", optional=True, tooltip="The CLIP that the table is of. Needed for phrases only."),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    placeholder="One phrase a line, such as: a red car",
                    tooltip="What to search for, one a line; as well as the tokens, or instead.",
                ),
                io.Int.Input("top", default=10, min=1, max=1000, tooltip="Regions to find for each token and phrase."),
                io.String.Input(
                    "labels", default="", tooltip="Only regions with one of these labels, with commas between. Empty: all."
                ),
                io.String.Input(
                    "pictures", default="", tooltip="Only regions of pictures with such a name, as holiday/*.jpg. Empty: all."
                ),
                io.Float.Input(
                    "smallest",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Only regions that take at least this share of their picture.",
                ),
                io.Float.Input(
                    "largest", default=1.0, min=0.0, max=1.0, step=0.001, tooltip="Only regions of at most this share."
                ),
                io.String.Input("template", default=CLASS_TEMPLATE, advanced=True, tooltip="Each phrase is read in place of {}."),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="What was searched for, and what was found, outlined."),
                io.Image.Output(display_name="images", is_output_list=True, tooltip="The whole pictures of what was found."),
                io.Mask.Output(display_name="masks", is_output_list=True, tooltip="The region in each of these pictures."),
                io.String.Output(display_name="labels", tooltip="Of these regions, one a line; empty where there is none."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: what was asked, cosine, id, picture, label."),
                io.String.Output(display_name="json", tooltip="Everything that the table says of them, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        table: RegionSearch,
        phrases: str,
        top: int,
        labels: str,
        pictures: str,
        smallest: float,
        largest: float,
        template: str,
        tokens: Tokens | None = None,
        clip: ManagedClip | None = None,
    ) -> io.NodeOutput:
        questions = table.of_tokens(tokens) if tokens is not None else []
        lines = [line for line in phrases.splitlines() if line.strip()]
        if lines and clip is None:
            raise InputError(f"the phrases cannot be read: connect the CLIP that the table is of, {table.table.made.model}")
        if lines and clip is not None:
            questions += table.of_phrases(lines, clip.ready(), sentences(template, ""))
        if not questions:
            raise InputError("there is nothing to search for: connect tokens, or write a phrase")
        only = Only(pictures.strip() or None, [part.strip() for part in labels.split(",") if part.strip()], (smallest, largest))
        found = table.nearest(questions, top, only, counter(cls.hidden.unique_id))
        album = album_of(table)
        sheet = contact_sheet(found_rows(table, album, questions, found))
        regions = [region for its in found for region in its]
        pixels = sum(region.about["width"] * region.about["height"] for region in regions)
        check_room(19 * pixels, f"{len(regions)} pictures and masks", "find fewer: lower top")
        shown = [(region, view) for region, view in zip(regions, album.views(table, regions), strict=True) if view is not None]
        if not shown:
            raise InputError(f"{len(regions)} regions were found, and none can be shown: {album.told()}")
        return cls.told(questions, found, album, sheet_tensor(sheet), shown)

    @classmethod
    def told(
        cls,
        questions: list[Question],
        found: list[list[Region]],
        album: Album,
        sheet: torch.Tensor,
        shown: list[tuple[Region, View]],
    ) -> io.NodeOutput:
        rows = [
            f"{question.name}\t{region.score:.4f}\t{region.about['id']}\t{region.picture}\t{region.about['label'] or ''}"
            for question, regions in zip(questions, found, strict=True)
            for region in regions
        ]
        answers = [
            {"question": question.name, "regions": [region.to_dict() for region in regions]}
            for question, regions in zip(questions, found, strict=True)
        ]
        words = [f"{region.score:.3f} {region.about['label'] or ''} {region.picture}" for region, _ in shown[:SHOWN]]
        told = [problems] if (problems := album.told()) else []
        images = [view.pixels()[None] for _, view in shown]
        masks = [view.full_mask()[None] for _, view in shown]
        names = "\n".join(region.about["label"] or "" for region, _ in shown)
        text = json.dumps(answers, indent=1, ensure_ascii=False)
        found_text = "\n".join(rows)
        return with_shown(
            sheet, images, masks, names, found_text, text, text="\n".join(words), told=told, picture=lambda: sheet[0]
        )


class MapOfRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionMapOfRegions",
            display_name="Map of Regions",
            category=COLLECTION_CATEGORY,
            description="A picture of a whole table: regions that are like one another lie near one another.",
            search_aliases=["t-SNE", "cluster images", "duplicates", "visualise collection"],
            inputs=[
                RegionTableSocket.Input("table", tooltip="From Load Region Table."),
                io.Combo.Input(
                    "groups",
                    options=[NOT_GROUPED, CLUSTERS, DUPLICATES],
                    default=NOT_GROUPED,
                    tooltip="Regions of one group get a frame of one colour.",
                ),
                io.Int.Input("clusters", default=12, min=1, max=1000, tooltip="How many clusters."),
                io.Float.Input(
                    "likeness", default=0.97, min=0.01, max=1.0, step=0.01, tooltip="The least cosine of near-duplicates."
                ),
                io.Int.Input("most", default=MOST, min=3, max=5000, tooltip="Regions on the map; of more, so many are drawn."),
                io.Int.Input("size", default=2400, min=256, max=8192, tooltip="Of the map, in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="map", tooltip="The picture of the whole table."),
                io.String.Output(display_name="groups", tooltip="As JSON: of each group its size, likeness and ids."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, table: RegionSearch, groups: str, clusters: int, likeness: float, most: int, size: int
    ) -> io.NodeOutput:
        found = grouped(table, groups, clusters, likeness, cls.hidden.unique_id)
        album = album_of(table)
        drawn = region_map(table, album, groups=found, most=most, size=size)
        ids = table.rows["id"].to_pylist()
        text = json.dumps([group.to_dict(ids) for group in found], indent=1)
        words = f"{len(table)} regions" + (f", {len(found)} groups" if groups != NOT_GROUPED else "")
        told = [problems] if (problems := album.told()) else []
        shown = sheet_tensor(drawn)
        return with_shown(shown, text, text=words, told=told, picture=lambda: shown[0])


def grouped(table: RegionSearch, groups: str, count: int, likeness: float, node: str) -> list[Group]:
    if groups == CLUSTERS:
        return clusters(table.tokens, min(count, len(table)))
    return near_duplicates(table.tokens, likeness, progress=counter(node)) if groups == DUPLICATES else []


def sheet_tensor(picture) -> torch.Tensor:
    """A PIL picture as IMAGE."""
    return View(picture, None, (0, 0, 0, 0)).pixels()[None]


def album_of(search: RegionSearch) -> Album:
    """The pictures of a table, where ComfyUI may read them: beside the table, in the input and output folders, and in those that
    extra_model_paths.yaml names as `region_pictures`. Raises InputError for others."""
    source = search.table.source
    base = source.get("pictures", source.get("shards"))  # not those in Parquet files, whose rows may name any file
    if not isinstance(base, str):
        raise InputError(f"the pictures of {search.table.folder} are neither in a folder nor in shards, so no node reads them")
    allowed = [folder_paths.get_input_directory(), folder_paths.get_output_directory(), *map(str, bases(PICTURES))]
    if not any(inside(folder, str(Path(base).resolve())) for folder in allowed):
        raise InputError(
            f"the pictures of this table are in {base}, where ComfyUI does not read: put them into {allowed[0]} and make the table "
            f"of them there, or name that folder in extra_model_paths.yaml as {PICTURES}"
        )
    return Album(search.table, Path(base) if "pictures" in source else None)


def found_tables() -> list[str]:
    """Folders that are tables, as `token_files.found_files` names files."""
    found = []
    for base, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT)):
        folders = sorted(path.parent for path in Path(base).rglob(MANIFEST) if (path.parent / "regions").is_dir())
        found += [name + mark for name in relative([(Path(base), path) for path in folders])]
    return found


NODES = (LoadRegionTable, SaveRegions, SearchRegions, MapOfRegions)
