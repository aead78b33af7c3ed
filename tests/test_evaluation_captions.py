import torch

from course_lib.data.captions import captioned
from course_lib.data.images import digits, to_unit_range
from course_lib.evaluation.captions import caption_reader
from course_lib.evaluation.judge import judge


def test_captions_are_read_off_real_images_hardly_ever_wrong():
    train, test = captioned(digits())
    reader = caption_reader(judge("digits"), train)
    right = reader.read(to_unit_range(test.images)) == test.conditions
    digit, is_bold, is_slanted = right.float().mean(dim=0).tolist()
    assert digit > 0.93 and is_bold > 0.97 and is_slanted > 0.99


def test_what_is_read_follows_what_was_done_to_the_image():
    train, test = captioned(digits())
    reader = caption_reader(judge("digits"), train)
    forms = to_unit_range(test.images).unflatten(0, (4, -1))[:, :100]
    read = torch.stack([reader.read(form).float().mean(dim=0) for form in forms])  # (forms, attributes)
    assert (read[:2, 1] < 0.1).all() and (read[2:, 1] > 0.9).all()
    assert (read[::2, 2] < 0.02).all() and (read[1::2, 2] > 0.98).all()
