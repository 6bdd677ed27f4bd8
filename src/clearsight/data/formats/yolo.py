"""YOLO: one text file an image, one line an object, all coordinates as shares of the image's sides.

`data.yaml` says the class names (a list, or names by number), the folder (`path`) and the splits (`train`, `val`,
`test`, or any other key): a folder, a list file, or several of them. Labels lie in a tree `labels` beside the tree
`images`, or beside the images. Without `data.yaml`, names come from `classes.txt` or `obj.names` and splits from
folders. Boxes (`class cx cy w h`) and polygons of one ring are read; key points are not.

An image without a label file is background, which is how the format says that nothing is there.
"""

from __future__ import annotations

from pathlib import Path

from clearsight.data.class_names import ClassNames
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size
from clearsight.data.files import encodable, list_files, printable
from clearsight.data.formats.yolo_layout import Layout, find_layout, find_yaml, label_path
from clearsight.data.formats.yolo_lines import parse_labels
from clearsight.data.formats.yolo_write import loses, write
from clearsight.errors import DataError
from clearsight.types import Finding, Record, Severity

__all__ = ["loses", "read", "sniff", "write"]

_NO_LABELS = frozenset(["classes.txt", "license.txt", "names.txt", "notes.txt", "readme.txt", "requirements.txt"])


def sniff(path: Path) -> bool:
    """Whether there is a YAML file that names classes, or a text file of class numbers and shares."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml") and find_yaml(path.parent) is not None
    if find_yaml(path) is not None:
        return True
    files = [file for file in list_files(path, {".txt"}) if file.name.lower() not in _NO_LABELS]
    return any(_is_label(file) for file in files[:10])


def _is_label(file: Path) -> bool:
    with file.open("rb") as opened:
        first = opened.read(4096).split(b"\n")[0].split()
    try:
        values = [float(column) for column in first]
    except ValueError:
        return False
    return len(values) >= 5 and len(values) % 2 == 1 and values[0].is_integer()


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read a data set of images with label files.

    Args:
        path: `data.yaml`, or the folder of the data set.
        classes: class names in label order; None takes the file's.

    Returns:
        Task `instance` where any object has a polygon, else `detection`. `Record.size` is that of the image's header,
        since pixels are counted by it. `Dataset.attributes` has the further keys of `data.yaml`, and `class_ids` where
        the class numbers skip some.
    """
    findings: list[Finding] = []
    layout = find_layout(path, findings)
    images = _one_record_each(layout, findings)
    label_files = {image: label_path(image) for image in images}
    existing = {image: file for image, file in label_files.items() if file.is_file()}
    numbers = layout.names or _numbers_used(existing, layout, findings)
    names = classes if classes is not None else tuple(numbers.values())
    labels = _labels(numbers, names, layout, findings)
    records = [record for image in images if (record := _record(image, images[image], existing, findings)) is not None]
    _read_labels(records, labels, layout, findings)
    if images and not existing:
        expected = next(iter(label_files.values()))
        text = f"none of {len(images)} images has a label file; {expected} was expected for the first"
        findings.append(_finding("image-without-label", "error", str(layout.root), text, "all dropped"))
        records = []
    elif len(existing) < len(images):
        findings += [_background(image, file) for image, file in label_files.items() if image not in existing]
    findings += _without_image(set(existing.values()), set(label_files.values()), layout)
    extra = dict(layout.extra)
    if list(numbers) != list(range(len(numbers))):
        extra["class_ids"] = list(numbers)
    return Dataset(
        records=records,
        classes=names,
        task="instance" if any(item.polygons for record in records for item in record.objects) else "detection",
        root=layout.root,
        format="yolo",
        findings=findings,
        attributes=extra,
    )


def _one_record_each(layout: Layout, findings: list[Finding]) -> dict[Path, list[str]]:
    """Each image once, with all splits that have it; in `train`, `val`, `test`, then as they come."""
    order = sorted(layout.images, key=lambda split: ("train", "val", "test", split).index(split))
    images: dict[Path, list[str]] = {}
    for split in order:
        for image in layout.images[split]:
            if not encodable(image):
                text = "the file name is not valid UTF-8, so no annotation or report can name it; rename it"
                findings.append(_finding("encoding-name", "error", printable(image), text, "dropped"))
                continue
            splits = images.setdefault(image, [])
            if split is not None:
                splits.append(split)
    for image, splits in images.items():
        usual = [split for split in splits if split in ("train", "val", "test")]
        if len(usual) > 1:
            text = f"the image is in {' and '.join(usual)}: what is trained on is also scored"
            findings.append(_finding("leak", "warning", str(image), text, "kept in both"))
    return images


def _numbers_used(files: dict[Path, Path], layout: Layout, findings: list[Finding]) -> dict[int, str]:
    """Names made up from the numbers that label files use, where nothing names the classes."""
    largest = -1
    for file in files.values():
        for line in file.read_bytes().splitlines():
            first = line.split()[:1]
            if first and first[0].isdigit():
                largest = max(largest, int(first[0]))
    names = {number: f"class_{number}" for number in range(min(largest, 9999) + 1)}
    text = f"nothing names the classes; the labels use numbers up to {largest}; add names to data.yaml or classes.txt"
    findings.append(_finding("unnamed-classes", "warning", str(layout.root), text, "named class_0, class_1, …"))
    return names


def _labels(
    numbers: dict[int, str], names: tuple[str, ...], layout: Layout, findings: list[Finding]
) -> dict[int, int | None]:
    table, where = ClassNames(names), f"{layout.root}#names"
    return {number: table.label(name, where, findings) for number, name in numbers.items()}


def _record(image: Path, splits: list[str], existing: dict[Path, Path], findings: list[Finding]) -> Record | None:
    try:
        size = image_size(image)
    except DataError as err:
        unknown = _finding("truncated-image", "error", str(image), str(err), "dropped with its objects")
        findings.extend(err.findings or [unknown])
        return None
    where = str(existing.get(image, ""))
    record = Record(image=image, size=size, split=splits[0] if splits else None, where=where)
    if splits[1:]:
        record.attributes["lists"] = splits[1:]
    return record


def _read_labels(records: list[Record], labels: dict[int, int | None], layout: Layout, findings: list[Finding]) -> None:
    key_points = "kpt_shape" in layout.extra
    if key_points:
        text = "the labels have key points, which are not read"
        findings.append(_finding("unsupported-annotation", "warning", str(layout.root), text, "their boxes are read"))
    for record in records:
        if record.where and record.size is not None:
            file = Path(record.where)
            record.objects = parse_labels(file, record.size, labels, findings, key_points=key_points)


def _background(image: Path, expected: Path) -> Finding:
    text = f"there is no {expected}, so the image counts as background"
    return _finding("image-without-label", "info", str(image), text, "kept without objects")


def _without_image(used: set[Path], expected: set[Path], layout: Layout) -> list[Finding]:
    """Label files in the folders of labels that belong to no image of the data set."""
    known = {*expected, *layout.lists}
    found = []
    for folder in sorted({file.parent for file in used}):
        for file in list_files(folder, {".txt"}, recursive=False):
            if file not in known and file.name.lower() not in _NO_LABELS and _is_label(file):
                text = f"no image of any split belongs to this label file ({file.stem}.*)"
                found.append(_finding("missing-image", "error", str(file), text, "dropped"))
    return found


def _finding(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)
