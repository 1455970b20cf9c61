"""Tests of what training is made of: `python3 -m unittest` in this folder."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

import blocks
import tiny
import random_model
from checkpoints import Checkpoints
from documents import Documents, padded_lengths
from model import FrozenHead, Functions, Model, attend, read_base, round_rows, softmax_gradient
from weights import MODES, Rates, Weights

F32 = {"device": torch.device("cpu"), "dtype": torch.float32}


def trainee(mode="both"):
    base = read_base(random_model.base_file())
    weights = Weights(base, mode, Rates(0.5, 0.05), **F32)
    model = Model(base.shape, weights.out.view(-1), weights.small, torch.from_numpy(base.embedding))
    return base, weights, model


class Weighted(unittest.TestCase):
    def test_untrained_weights_are_the_bases(self):
        for mode in MODES:
            base, weights, _ = trainee(mode)
            expect = blocks.weights_q4_1(base.q, base.d, base.m)
            np.testing.assert_array_equal(weights.out.numpy(), expect, mode)

    def test_a_start_off_the_grid_changes_no_weight_but_lets_a_small_move_change_some(self):
        moved = []
        for dither in (0.0, 0.45):
            base = read_base(random_model.base_file())
            weights = Weights(base, "grid", Rates(0.2, 0, dither), **F32)
            np.testing.assert_array_equal(weights.out.numpy(), blocks.weights_q4_1(base.q, base.d, base.m))
            weights.step(torch.ones(base.n_weights), torch.zeros_like(weights.small), 1.0)
            moved.append((weights.shipped()[0] != base.q).mean())
        self.assertEqual(moved[0], 0)
        self.assertAlmostEqual(moved[1], 0.15 / 0.9, delta=0.02)

    def test_what_is_computed_with_is_what_is_shipped(self):
        for mode in MODES:
            base, weights, model = trainee(mode)
            for seed in range(3):
                model.matrix_slopes.copy_(torch.randn(base.n_weights, generator=torch.Generator().manual_seed(seed)))
                weights.step(model.matrix_slopes, model.small_slopes, 1.0)
            q, d, m, _, _ = weights.shipped()
            np.testing.assert_array_equal(weights.out.numpy(), blocks.weights_q4_1(q, d, m), mode)
            self.assertEqual((q != base.q).any(), mode != "scales", mode)
            self.assertEqual((d != base.d).any(), mode != "grid", mode)

    def test_a_step_goes_down_the_gradient(self):
        for mode in MODES:
            base, weights, model = trainee(mode)
            before = weights.out.clone()
            model.matrix_slopes.fill_(1.0)
            for _ in range(3):
                weights.step(model.matrix_slopes, model.small_slopes, 1.0)
            self.assertLess((weights.out - before).mean().item(), 0, mode)

    def test_a_gradient_that_is_not_finite_moves_nothing(self):
        for mode in MODES:
            _, weights, model = trainee(mode)
            before = weights.out.clone(), weights.small.clone()
            model.matrix_slopes.fill_(1.0)
            model.matrix_slopes[5] = float("nan")
            weights.step(model.matrix_slopes, model.small_slopes, 1.0)
            self.assertTrue(torch.equal(weights.out, before[0]), mode)
            self.assertTrue(torch.equal(weights.small, before[1]), mode)
            self.assertEqual(weights.n_bad.item(), 1)

    def test_a_checkpoint_brings_everything_back(self):
        _, weights, model = trainee()
        model.matrix_slopes.normal_()
        model.small_slopes.normal_()
        weights.step(model.matrix_slopes, model.small_slopes, 1.0)
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder)
            checkpoints.write(weights, 12.5)
            checkpoints.wait()
            _, again, other = trainee()
            self.assertEqual(checkpoints.read(again), 12.5)
        self.assertTrue(torch.equal(weights.out, again.out))
        other.matrix_slopes.copy_(model.matrix_slopes)
        other.small_slopes.copy_(model.small_slopes)
        for trained, at in ((weights, model), (again, other)):
            trained.step(at.matrix_slopes, at.small_slopes, 1.0)
        self.assertTrue(torch.equal(weights.out, again.out))
        self.assertTrue(torch.equal(weights.small, again.small))

    def test_rows_round_as_they_are_shipped(self):
        rows = torch.randn(3, 64)
        shipped = blocks.read_q8_0(blocks.write_q8_0(rows.numpy().reshape(-1, 32)))
        np.testing.assert_array_equal(round_rows(rows).numpy().reshape(-1, 32), shipped)


class Modelled(unittest.TestCase):
    def test_documents_do_not_see_each_other(self):
        _, _, model = trainee()
        ids = torch.randint(17, 96, (256,))
        together = model.hidden(Functions(False), ids, 64).detach()
        for at in range(0, 256, 64):
            alone = model.hidden(Functions(False), ids[at : at + 64], 64).detach()
            torch.testing.assert_close(together[at : at + 64], alone)

    def test_heads_in_groups_are_heads_repeated(self):
        q, k, v = torch.randn(128, 4, 32), torch.randn(128, 2, 32), torch.randn(128, 2, 32)
        torch.testing.assert_close(attend(q, k, v, 64, True), attend(q, k, v, 64, False))

    def test_the_frozen_heads_gradient_is_autograds(self):
        rows = torch.randn(12, 16, requires_grad=True)
        head, targets, weights = torch.randn(40, 16), torch.randint(0, 40, (12,)), torch.rand(12)
        total, losses = FrozenHead.apply(rows, head, targets, weights, softmax_gradient, 3)
        plain = torch.nn.functional.cross_entropy(rows @ head.t(), targets, reduction="none")
        torch.testing.assert_close(losses, plain.detach())
        (found,) = torch.autograd.grad(total, rows)
        (expect,) = torch.autograd.grad((plain * weights).sum(), rows)
        torch.testing.assert_close(found, expect)

    def test_the_slope_of_a_matrix_is_the_losses(self):
        base, weights, model = trainee()
        ids, step = torch.randint(0, 96, (64,)), 1e-2

        def loss():
            return model.hidden(Functions(False), ids, 64).square().mean()

        loss().backward()
        idx = int(model.matrix_slopes.abs().argmax())
        slope, flat = model.matrix_slopes[idx].item(), weights.out.view(-1)
        with torch.no_grad():
            flat[idx] += step
            above = loss().item()
            flat[idx] -= 2 * step
            below = loss().item()
        self.assertAlmostEqual((above - below) / (2 * step) / slope, 1, delta=0.02)


class Documented(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        tiny.write_documents(Path(self.folder.name), "train", 300, seed=3)
        self.documents = Documents.read(self.folder.name, "train", "cpu")

    def tearDown(self):
        self.folder.cleanup()

    def test_an_epoch_has_each_document_at_most_once_and_padded_to_fit(self):
        batches = self.documents.epoch(1024, np.random.default_rng(0))
        docs = np.concatenate([docs for _, docs in batches])
        self.assertEqual(len(set(docs)), len(docs))
        self.assertGreater(len(docs), 200)
        for n_padded, some in batches:
            self.assertLessEqual(self.documents.n_tokens[some].max(), n_padded)
            self.assertEqual(len(some) * n_padded, 1024)

    def test_a_batch_asks_for_the_last_tokens_and_for_no_role(self):
        n_padded, docs = self.documents.epoch(1024, np.random.default_rng(0))[0]
        batch = self.documents.batch(n_padded, docs, 1024, 1024, torch.Generator().manual_seed(0))
        asked = set(batch.places[batch.is_target].tolist())
        expect = set()
        for idx, doc in enumerate(docs):
            n, n_target = self.documents.n_tokens[doc], self.documents.n_target[doc]
            if self.documents.kind[doc] < 3:
                expect |= {idx * n_padded + at - 1 for at in range(n - n_target, n)}
        self.assertEqual(asked, expect)
        counted = batch.weights > 0
        self.assertFalse(((batch.targets >= 8) & (batch.targets <= 10))[counted].any())
        ends = {idx * n_padded + self.documents.n_tokens[doc] - 1 for idx, doc in enumerate(docs)}
        self.assertFalse(ends & set(batch.places[counted].tolist()))
        self.assertTrue((batch.ids[batch.places[counted] + 1] == batch.targets[counted]).all())

    def test_few_places_go_to_what_is_asked_for(self):
        n_padded, docs = self.documents.epoch(1024, np.random.default_rng(0))[0]
        batch = self.documents.batch(n_padded, docs, 1024, 16, torch.Generator().manual_seed(0))
        self.assertTrue(batch.is_target.all())

    def test_lengths_divide_the_batch(self):
        self.assertEqual(padded_lengths(61440).tolist(), [64, 128, 192, 256, 320, 384, 512, 640, 768, 960, 1024])
        with self.assertRaises(ValueError):
            padded_lengths(1000)


if __name__ == "__main__":
    unittest.main()
