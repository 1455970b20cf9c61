"""Tests of patches, blocks and pieces, without PyTorch: `python3 -m unittest` in this folder."""

import tempfile
import unittest
from pathlib import Path

import numpy as np

import blocks
import gguf
import pack
import patch
import random_model


def changed(base, rng, with_scales):
    """The base's file with other nibbles, and other scales if asked for, in every second matrix."""
    header, data = gguf.read_header(base), bytearray(base)
    for idx, tensor in enumerate(tensor for tensor in header.tensors if tensor.kind == gguf.Q4_1):
        if idx % 2:
            continue
        q, d, m = blocks.read_q4_1(bytes(data[tensor.start : tensor.start + tensor.n_bytes]))
        q = np.where(rng.random(q.shape) < 0.1, rng.integers(0, 16, q.shape), q).astype(np.uint8)
        if with_scales:
            d, m = (x * rng.normal(1, 0.01, x.shape).astype(np.float16) for x in (d, m))
        data[tensor.start : tensor.start + tensor.n_bytes] = blocks.write_q4_1(q, d, m)
    tensor = header.tensor("output_norm.weight")
    data[tensor.start : tensor.start + 4] = np.float32(1.25).tobytes()
    new_header = gguf.header_bytes(patch.metadata_of_result(header.metadata), header.tensors, header.data_start)
    return new_header + bytes(data[header.data_start :])


class Patched(unittest.TestCase):
    def check(self, with_scales, expect_op):
        base = random_model.base_file()
        new = changed(base, np.random.default_rng(0), with_scales)
        made = patch.difference(base, new)
        ops = {op["op"] for op in made["patch"]["ops"]}
        self.assertEqual(ops, {"copy", "insert", "xor", expect_op})
        self.assertLess(len(made["insert"]), 400)
        with tempfile.TemporaryDirectory() as folder:
            patch.write_patch(made, f"{folder}/a.patch")
            patch.write_patch(made, f"{folder}/b.patch")
            self.assertEqual(Path(f"{folder}/a.patch").read_bytes(), Path(f"{folder}/b.patch").read_bytes())
            self.assertEqual(patch.apply(base, patch.read_patch(f"{folder}/a.patch")), new)

    def test_a_patch_is_about_as_small_as_its_entropy(self):
        rng = np.random.default_rng(0)
        nibbles = rng.choice(np.uint8([0, 1, 15]), 400_000, p=[0.88, 0.06, 0.06])
        made = {"patch": {}, **dict.fromkeys(patch.ENTRIES, b"")}
        made["nibbles"] = blocks.pack(nibbles.reshape(-1, 32)).tobytes()
        with tempfile.TemporaryDirectory() as folder:
            patch.write_patch(made, f"{folder}/a.patch")
            n_bytes = Path(f"{folder}/a.patch").stat().st_size
            self.assertEqual(patch.read_patch(f"{folder}/a.patch")["nibbles"], made["nibbles"])
        shares = np.array([0.88, 0.06, 0.06])
        entropy_bytes = -(shares * np.log2(shares)).sum() * 400_000 / 8
        self.assertLess(n_bytes, 1.25 * entropy_bytes)

    def test_nibbles_alone_are_added(self):
        self.check(False, "nibbles")

    def test_scales_move_with_the_nibbles(self):
        self.check(True, "blocks")

    def test_nothing_changed_is_one_copy_beside_the_header(self):
        base = random_model.base_file()
        self.assertEqual([op["op"] for op in patch.difference(base, base)["patch"]["ops"]], ["insert", "copy"] * 2)

    def test_another_base_or_a_damaged_patch_is_refused(self):
        base = random_model.base_file()
        made = patch.difference(base, changed(base, np.random.default_rng(0), False))
        with self.assertRaisesRegex(ValueError, "another base"):
            patch.apply(random_model.base_file(seed=1), made)
        made["nibbles"] = bytes([made["nibbles"][0] ^ 1]) + made["nibbles"][1:]
        with self.assertRaisesRegex(ValueError, "damaged"):
            patch.apply(base, made)

    def test_the_result_names_its_roles(self):
        base = random_model.base_file()
        header = gguf.read_header(changed(base, np.random.default_rng(0), False))
        self.assertEqual(header["tokenizer.ggml.tokens"][1][8:11], ["<fim_suffix>", "<fim_prefix>", "<fim_middle>"])
        roles = [header[f"tokenizer.ggml.fim_{role}_token_id"] for role in ("suf", "pre", "mid")]
        self.assertEqual(roles, [8, 9, 10])
        self.assertEqual(header["tandem.fim_order"], "spm")


class Blocks(unittest.TestCase):
    def test_q4_1_is_read_as_it_was_written(self):
        rng = np.random.default_rng(0)
        raw = rng.integers(0, 256, (50, 20), dtype=np.uint8)
        raw[:, 1::2][:, :2] &= 0x3F  # Finite scales.
        self.assertEqual(blocks.write_q4_1(*blocks.read_q4_1(raw.tobytes())), raw.tobytes())

    def test_a_weights_place_in_its_block_is_ggmls(self):
        raw = np.zeros(20, dtype=np.uint8)
        raw[:4] = np.array([2, 3], dtype=np.float16).view(np.uint8)
        raw[4], raw[5] = 0x71, 0x0F
        weights = blocks.weights_q4_1(*blocks.read_q4_1(raw.tobytes()))[0]
        self.assertEqual(weights[[0, 1, 2, 16, 17]].tolist(), [5, 33, 3, 17, 3])

    def test_nibbles_are_added_and_subtracted_modulo_16(self):
        pairs = np.mgrid[0:256, 0:256].reshape(2, -1).astype(np.uint8)
        delta = blocks.subtract_nibbles(pairs[0], pairs[1])
        np.testing.assert_array_equal(blocks.add_nibbles(pairs[1], delta), pairs[0])
        self.assertEqual(int(blocks.add_nibbles(np.uint8([0x1F]), np.uint8([0x12]))[0]), 0x21)

    def test_scales_come_back_from_how_they_moved(self):
        base = np.arange(0, 65536, 7, dtype=np.uint16)
        for shift in (0, 1, 65535, 3, 40000):
            scales = base + np.uint16(shift)
            np.testing.assert_array_equal(blocks.read_scale_delta(blocks.write_scale_delta(scales, base), base), scales)
        self.assertEqual(blocks.write_scale_delta(np.uint16([9]), np.uint16([10])), b"\1\0")


class Pieces(unittest.TestCase):
    def test_files_come_out_of_their_pieces(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            raw = np.random.default_rng(0).integers(0, 40, 200_000, dtype="<u2").tobytes()
            (folder / "train-256.u16").write_bytes(raw)
            (folder / "base.gguf").write_bytes(raw[:1001])
            sizes = pack.make(folder / "out", 0.05, [folder / "train-256.u16", folder / "base.gguf"])
            self.assertGreater(len(sizes), 2)
            self.assertLessEqual(max(sizes), 0.05 * 2**20)
            self.assertEqual(pack.unpack(folder / "out", folder / "again"), ["train-256.u16", "base.gguf"])
            self.assertEqual((folder / "again" / "train-256.u16").read_bytes(), raw)
            self.assertEqual((folder / "again" / "base.gguf").read_bytes(), raw[:1001])
            first = folder / "out" / "piece-00"
            whole = first.read_bytes()
            first.write_bytes(whole.replace(b'"sha256": "', b'"sha256": "0', 1))
            with self.assertRaisesRegex(ValueError, "otherwise"):
                pack.unpack(folder / "out", folder / "again")
            first.write_bytes(whole)
            (folder / "out" / "piece-01").unlink()
            with self.assertRaisesRegex(ValueError, "all pieces"):
                pack.unpack(folder / "out", folder / "again")


if __name__ == "__main__":
    unittest.main()
