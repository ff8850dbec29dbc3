"""Labelled volumes: both layouts are found, every mistake is refused with a sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case, check_cases, find_cases, missing_structures, read_case
from mkd_core.measure.messages import describe
from mkd_core.structures import STRUCTURES
from Testing.support.dicom_series import write_series
from Testing.support.stored_volumes import rotation, stored_otherwise

MMWHS = [0, 500, 600, 420, 550, 205, 820, 850]


def sentences(cases, **settings) -> list[str]:
    """What check_cases doubts, in words; the volumes here are far too small for a heart, which is no matter."""
    return [describe(one) for one in check_cases(cases, **settings) if one.code != "heart_cut"]


def volume(voxels: np.ndarray, spacing=(1.0, 1.5, 2.0), origin=(-10.0, 20.0, 5.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def ct(size=(12, 11, 10), kind=np.int16) -> sitk.Image:
    """A volume with the intensities of a CT, however small."""
    return volume(np.random.default_rng(0).integers(-1000, 500, size[::-1]).astype(kind))


def mr() -> sitk.Image:
    """A volume with intensities as an MR may have."""
    return ct() + 1000


def eight_labels(values=range(8), size=(12, 11, 10), kind=np.int16) -> sitk.Image:
    """A label map with a slab of each value."""
    voxels = np.zeros(size[::-1], kind)
    for number, value in enumerate(values):
        voxels[number] = value
    return volume(voxels)


def write(image: sitk.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_pair(folder: Path, name: str, image: sitk.Image | None = None, label: sitk.Image | None = None) -> Case:
    """Write NAME_image and NAME_label as MM-WHS names them."""
    return Case(
        name,
        write(image or (mr() if name.startswith("mr") else ct()), folder / f"{name}_image.nii.gz"),
        write(label or eight_labels(MMWHS), folder / f"{name}_label.nii.gz"),
        name[:2].upper(),
    )


def write_table(folder: Path, text: str) -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(work, *arguments, **options) -> str:
    """The sentence with which something is refused."""
    with pytest.raises(InputError) as caught:
        work(*arguments, **options)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------------------
# finding


def test_an_mmwhs_folder_is_read_as_it_is_unpacked(tmp_path):
    for name in ("mr_train_1002", "ct_train_1010", "ct_train_1001"):
        write_pair(tmp_path / name[:8], name)
    write(ct(), tmp_path / "ct_test" / "ct_test_2001_image.nii.gz")  # published without a label
    write_pair(tmp_path / "mr_test", "mr_test_2001")
    write(ct(), tmp_path / "ct_train" / "._ct_train_1001_image.nii.gz")  # what a Mac leaves in archives
    write(ct(), tmp_path / "__MACOSX" / ".hidden" / "ct_train_1001_image.nii.gz")
    (tmp_path / "readme.txt").write_text("MM-WHS")
    cases = find_cases(tmp_path)
    assert [(case.name, case.modality, case.split) for case in cases] == [
        ("ct_train_1001", "CT", ""),
        ("ct_train_1010", "CT", ""),
        ("mr_test_2001", "MR", "test"),
        ("mr_train_1002", "MR", ""),
    ]
    assert cases[0].image == tmp_path / "ct_train" / "ct_train_1001_image.nii.gz"
    assert cases[0].label == tmp_path / "ct_train" / "ct_train_1001_label.nii.gz"
    assert sentences(cases, needed=("CT", "MR"), require_all=True) == []


def test_a_table_gives_paths_beside_itself_modality_and_split(tmp_path):
    table = write_table(
        tmp_path, "image,label,modality,split\na/ct_image.nii.gz,a/l.nii.gz,CT,train\n\nb.nrrd,c.nrrd,mr,Test\n"
    )
    assert find_cases(table) == [
        Case("ct", tmp_path / "a/ct_image.nii.gz", tmp_path / "a/l.nii.gz", "CT", "train"),
        Case("b", tmp_path / "b.nrrd", tmp_path / "c.nrrd", "MR", "test"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffImage;Label;Modality\na.nrrd;b.nrrd;CT\n",
        "modality\tlabel\timage\tscanner\nCT\tb.nrrd\ta.nrrd\tX\n",
        '"image","label","modality"\r\n"a.nrrd", b.nrrd ,CT\r\n',
    ],
)
def test_tables_of_spreadsheets_of_all_countries_are_read(tmp_path, text):
    assert find_cases(write_table(tmp_path, text)) == [Case("a", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "CT", "")]


def test_images_of_the_same_name_in_different_folders_are_told_apart(tmp_path):
    table = write_table(
        tmp_path,
        "image,label,modality\n" + "".join(f"{who}/ct/image.nii.gz,{who}/l.nii.gz,CT\n" for who in ("anna", "Bo b")),
    )
    assert [case.name for case in find_cases(table)] == ["anna_ct_image", "Bo_b_ct_image"]


def test_paths_in_a_table_may_be_absolute_and_outside_its_folder(tmp_path):
    (tmp_path / "tables").mkdir()
    case = write_pair(tmp_path / "data", "ct_train_1001")
    table = write_table(tmp_path / "tables", f"image,label,modality\n{case.image},../data/{case.label.name},CT\n")
    (found,) = find_cases(table)
    assert sentences([found]) == []
    assert read_case(found)[0].GetSize() == (12, 11, 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,modality\na,CT\n", "“cases.csv” has no column “label”"),
        ("", "“cases.csv” has no column “image”"),
        ("image,label,modality\n", "cases.csv” holds no labelled volumes"),
        ("image,label,modality\na.nrrd,b.nrrd,PET\n", "Line 2 of “cases.csv” has the modality “PET”"),
        ("image,label,modality\na.nrrd,b.nrrd\n", "Line 2 of “cases.csv” has no modality"),
        ("image,label,modality\nc.nrrd,d.nrrd,CT\n,b.nrrd,CT\n", "Line 3 of “cases.csv” has no image"),
        (
            "image,label,modality\na.nrrd,b.nrrd,CT\n./a.nrrd,c.nrrd,CT\n",
            "Line 3 of “cases.csv” names the same image as line 2: “./a.nrrd”",
        ),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, text, expected):
    assert expected in refusal(find_cases, write_table(tmp_path, text))


def test_a_file_that_is_no_table_is_refused(tmp_path):
    assert "“ct_train_1001_image.nii.gz” cannot be read as a CSV file" in refusal(
        find_cases, write_pair(tmp_path, "ct_train_1001").image
    )
    assert "There is no folder or file" in refusal(find_cases, tmp_path / "none")


def test_a_folder_without_cases_or_with_half_a_case_is_refused(tmp_path):
    assert f"“{tmp_path}” holds no labelled volumes" in refusal(find_cases, tmp_path)
    write(ct(), tmp_path / "ct_test_2001_image.nii.gz")
    assert "holds no labelled volumes" in refusal(find_cases, tmp_path)
    case = write_pair(tmp_path, "ct_train_1001")
    case.label.rename(tmp_path / "kept")
    assert "“ct_train_1001_image.nii.gz” has no label" in refusal(find_cases, tmp_path)
    (tmp_path / "kept").rename(case.label)
    case.image.unlink()
    assert "“ct_train_1001_label.nii.gz” has no image" in refusal(find_cases, tmp_path)


def test_a_case_that_lies_in_two_folders_is_refused(tmp_path):
    for folder in ("one", "two"):
        write_pair(tmp_path / folder, "mr_train_1007")
    message = refusal(find_cases, tmp_path)
    assert (
        "one/mr_train_1007_image.nii.gz" in message
        and "two/mr_train_1007_image.nii.gz" in message
        and "the same case" in message
    )


# ----------------------------------------------------------------------------------------------------------------------
# reading


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_values_of_mmwhs_become_ours_whatever_the_number_format(tmp_path, kind):
    case = write_pair(tmp_path, "ct_train_1001", label=eight_labels(MMWHS, kind=kind))
    image, labels = read_case(case)
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert sitk.GetArrayFromImage(labels)[:8, 0, 0].tolist() == list(range(8))
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, of)() == getattr(image, of)()


def test_the_stray_value_421_means_left_atrium(tmp_path):
    labels = read_case(write_pair(tmp_path, "ct_train_1001", label=eight_labels([0, 421, 420])))[1]
    assert sitk.GetArrayFromImage(labels)[:3, 0, 0].tolist() == [0, 3, 3]


def test_values_of_ours_stay_and_each_file_decides_for_itself(tmp_path):
    ours, theirs = (
        write_pair(tmp_path, "ct_train_1001", label=eight_labels(kind=np.uint8)),
        write_pair(tmp_path, "ct_train_1002"),
    )
    first, second = (sitk.GetArrayFromImage(read_case(case)[1]) for case in (ours, theirs))
    assert np.array_equal(first, second)


def test_oblique_and_flipped_volumes_are_read_on_their_own_grid(tmp_path):
    image, labels = (stored_otherwise(one, (2, 0, 1), (1, -1, 1)) for one in (mr(), eight_labels(MMWHS)))
    for one in (image, labels):
        one.SetDirection((rotation((0.2, -0.3, 0.1)) @ np.array(one.GetDirection()).reshape(3, 3)).ravel().tolist())
    case = write_pair(tmp_path, "mr_train_1001", image, labels)
    assert sentences([case]) == []
    read, truth = read_case(case)
    assert truth.GetDirection() == read.GetDirection()
    assert np.bincount(sitk.GetArrayFromImage(truth).ravel())[1:].tolist() == [132] * 7


def test_grids_that_differ_by_rounding_are_the_same(tmp_path):
    label = eight_labels(MMWHS)
    label.SetOrigin((-10.0004, 20.0003, 5.0))
    label.SetSpacing((1.00001, 1.5, 2.0))
    case = write_pair(tmp_path, "ct_train_1001", label=label)
    assert sentences([case]) == []
    assert read_case(case)[1].GetOrigin() == read_case(case)[0].GetOrigin()


# ----------------------------------------------------------------------------------------------------------------------
# checking


@pytest.mark.parametrize("value", [3.5, 999, -1, 421.5, float("nan")])
def test_a_value_that_means_no_structure_is_named(tmp_path, value):
    label = write(eight_labels([0, 500, value], kind=np.float32), tmp_path / "label.nrrd")
    case = Case("a", write(ct(), tmp_path / "image.nrrd"), label, "CT")
    for work in (check_cases, lambda cases: read_case(*cases)):
        assert f"“label.nrrd” has the value {value:g}, which means no structure" in refusal(work, [case])


def test_values_of_both_tables_in_one_file_are_refused(tmp_path):
    assert "has the value 3," in refusal(
        check_cases, [write_pair(tmp_path, "ct_train_1001", label=eight_labels([0, 3, 500]))]
    )
    assert "has the value 8," in refusal(
        check_cases, [write_pair(tmp_path, "ct_train_1002", label=eight_labels([0, 3, 8]))]
    )


def moved(image: sitk.Image, what: str) -> sitk.Image:
    if what == "spacing":
        image.SetSpacing((1.0, 1.5, 2.1))
    elif what == "origin":
        image.SetOrigin((-10.0, 20.0, 6.0))
    elif what == "direction":
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("what", ["spacing", "origin", "direction"])
def test_label_and_image_at_different_places_are_refused(tmp_path, what):
    case = write_pair(tmp_path, "ct_train_1001", label=moved(eight_labels(MMWHS), what))
    message = refusal(check_cases, [case])
    assert (
        "“ct_train_1001_image.nii.gz” and “ct_train_1001_label.nii.gz” lie on different grids" in message
        and "mm apart" in message
    )
    assert refusal(read_case, case) == message


def test_label_and_image_of_different_size_are_refused(tmp_path):
    case = write_pair(tmp_path, "ct_train_1001", label=eight_labels(MMWHS, size=(12, 11, 9)))
    assert "12 x 11 x 10 and 12 x 11 x 9 voxels" in refusal(check_cases, [case])


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_numbers_that_are_none_is_read_with_a_warning(tmp_path, value, kind, name):
    voxels = sitk.GetArrayFromImage(ct(kind=kind))
    voxels[9, 10, 11] = value
    case = Case("a", write(volume(voxels), tmp_path / name), write(eight_labels(), tmp_path / "label.nrrd"), "CT")
    assert f"“{name}”: 0.08% of the voxels hold no intensity" in sentences([case])[0]


def test_an_mr_that_calls_itself_ct_is_refused_before_work_starts(tmp_path):
    case = write_pair(tmp_path, "ct_train_1001", volume(sitk.GetArrayFromImage(ct()) + np.int16(2000)))
    assert "“ct_train_1001_image.nii.gz” cannot be used: the intensities are not Hounsfield units" in refusal(
        check_cases, [case]
    )


def test_an_empty_structure_is_a_warning_or_a_refusal(tmp_path):
    case = write_pair(tmp_path, "ct_train_1001", label=eight_labels([0, 500, 600, 420, 550, 820, 850]))
    warning = (
        "“ct_train_1001_label.nii.gz”: The label map has no voxel of the left ventricular myocardium. "
        "Complete the label, or leave the case out."
    )
    assert sentences([case]) == [warning]
    assert warning in refusal(check_cases, [case], require_all=True)
    assert missing_structures(read_case(case)[1]) == ["Myo"]
    nothing = write_pair(tmp_path, "ct_train_1002", label=eight_labels([0]))
    assert len(sentences([nothing])) == len(STRUCTURES)


def test_slices_time_series_and_colours_are_refused(tmp_path):
    flat = volume(np.zeros((20, 20), np.int16), (1, 1), (0, 0))
    one = Case("a", write(flat, tmp_path / "flat.nrrd"), write(flat, tmp_path / "flat_label.nrrd"), "CT")
    assert "“flat.nrrd” cannot be read: the image has 2 dimensions" in refusal(check_cases, [one])
    assert "“flat.nrrd” cannot be read: the image has 2 dimensions" in refusal(read_case, one)
    series = sitk.JoinSeries([ct(), ct()])
    assert "“t.nrrd” cannot be read: the volume is a time series" in refusal(
        check_cases, [Case("b", write(series, tmp_path / "t.nrrd"), one.label, "CT")]
    )
    colours = sitk.Compose([ct(), ct()])
    assert "“rgb_image.nii.gz” cannot be read: the volume has colours" in refusal(
        check_cases, [write_pair(tmp_path, "rgb", colours)]
    )
    assert "“lab_label.nii.gz” cannot be read: the volume has colours" in refusal(
        check_cases, [write_pair(tmp_path, "lab", label=colours)]
    )


@pytest.mark.parametrize("as_label", [False, True])
def test_files_that_are_missing_or_unreadable_are_refused(tmp_path, as_label):
    good = write_pair(tmp_path, "ct_train_1001")
    text = tmp_path / "text.nii.gz"
    text.write_text("hello")
    for path, words in ((tmp_path / "none.nrrd", "There is no file"), (text, "“text.nii.gz” cannot be read")):
        message = refusal(
            check_cases, [Case("a", good.image, path, "CT") if as_label else Case("a", path, good.label, "CT")]
        )
        assert words in message and path.name in message


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, name, share):
    label = write(eight_labels(), tmp_path / "label.nrrd")
    whole = write(ct(), tmp_path / name)
    assert sentences([Case("a", whole, label, "CT")]) == []
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    message = refusal(check_cases, [Case("a", whole, label, "CT")])
    assert f"“{name}” is cut off" in message or f"“{name}” cannot be read" in message


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_big_endian_nifti_files_are_read(tmp_path, kind):
    path = write(eight_labels(kind=kind), tmp_path / "label.nii")
    content = path.read_bytes()
    swapped = bytearray(content)
    # The size of every field of a NIfTI-1 header, in bytes and how many, from its start (nifti1.h).
    fields = [
        (4, 1),
        (1, 28),
        (4, 1),
        (2, 1),
        (1, 2),
        (2, 8),
        (4, 3),
        (2, 4),
        (4, 11),
        (2, 1),
        (1, 2),
        (4, 4),
        (4, 2),
        (1, 104),
        (2, 2),
        (4, 18),
        (1, 20),
    ]
    at = 0
    for size, count in fields + [(1, 4), (np.dtype(kind).itemsize, 12 * 11 * 10)]:
        for _ in range(count):
            swapped[at : at + size] = content[at : at + size][::-1]
            at += size
    assert at == len(content)
    path.write_bytes(swapped)
    case = Case("a", write(ct(), tmp_path / "image.nrrd"), path, "CT")
    assert sentences([case]) == []
    assert sitk.GetArrayFromImage(read_case(case)[1])[:8, 0, 0].tolist() == list(range(8))
    path.write_bytes(swapped[:-5])
    assert "“label.nii” is cut off" in refusal(check_cases, [case])


def test_a_sheared_nifti_file_is_refused(tmp_path):
    path = write(ct(), tmp_path / "ct_train_1001_image.nii")
    content = bytearray(path.read_bytes())
    content[252:254] = bytes(2)  # no quaternion
    rows = np.frombuffer(content, "<f4", 12, 280).copy()
    rows[1] += 0.01
    content[280:328] = rows.tobytes()
    path.write_bytes(content)
    message = refusal(check_cases, [Case("a", path, path, "CT")])
    assert "The axes of “ct_train_1001_image.nii” are not at right angles" in message


def test_a_bad_header_anywhere_is_found_before_any_voxel_is_read(tmp_path):
    cases = [write_pair(tmp_path, f"ct_train_100{number}") for number in range(3)]
    asked = []
    assert sentences(cases, progress=lambda done, count: asked.append((done, count))) == []
    assert asked == [(0, 3), (1, 3), (2, 3)]
    cases[2].label.unlink()
    del asked[:]
    assert "ct_train_1002_label.nii.gz" in refusal(check_cases, cases, progress=lambda done, count: asked.append(done))
    assert asked == []


def test_a_modality_without_cases_is_refused_where_it_is_needed(tmp_path):
    cases = [write_pair(tmp_path, "ct_train_1001")]
    assert sentences(cases, needed=("CT",)) == []
    assert "There is no MR among the labelled volumes" in refusal(check_cases, cases, needed=("CT", "MR"))
    assert "There is no CT" in refusal(check_cases, [], needed=("CT",))
    assert sentences([]) == []


def test_a_folder_with_a_dicom_series_can_be_an_image(tmp_path):
    image = ct()
    write_series(image, tmp_path / "series", 1)
    case = Case("a", tmp_path / "series", write(eight_labels(), tmp_path / "label.nrrd"), "CT")
    assert sentences([case]) == []
    assert read_case(case)[1].GetSize() == image.GetSize()
    write_series(image, tmp_path / "series", 2)
    assert "“series” holds 2 DICOM series" in refusal(check_cases, [case])


def test_a_table_names_the_structures_that_a_case_labels(tmp_path):
    text = "image,label,modality,structures\na.nrrd,b.nrrd,CT,LV  myo\nc.nrrd,d.nrrd,MR,\n"
    some, every = find_cases(write_table(tmp_path, text))
    assert some.structures == ("LV", "Myo") and every.structures is None
    assert [one.key for one in STRUCTURES if some.labels(one)] == ["LV", "Myo"]
    assert all(every.labels(one) for one in STRUCTURES)
    message = refusal(find_cases, write_table(tmp_path, text.replace("myo", "wall")))
    assert "Line 2" in message and "“wall”" in message


def test_a_case_must_show_what_it_labels_and_nothing_else(tmp_path):
    two = write(eight_labels([0, 500, 205]), tmp_path / "label.nrrd")
    image = write(ct(), tmp_path / "image.nrrd")
    case = Case("a", image, two, "CT", structures=("LV", "Myo"))
    assert sentences([case], require_all=True) == []
    more = Case("a", image, two, "CT", structures=("LV", "Myo", "LA"))
    assert "left atrium" in refusal(check_cases, [more], require_all=True)
    message = refusal(read_case, Case("a", image, two, "CT", structures=("LV",)))
    assert "label.nrrd" in message and "Myo" in message
