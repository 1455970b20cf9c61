import assert from 'node:assert/strict';
import { test } from 'node:test';

import { pageNumbers, paginate } from '../src/index.js';

const letters = ['a', 'b', 'c', 'd', 'e'];

test('the first page starts with the first item', () => {
  const page = paginate(letters, 1, 2);
  assert.deepEqual(page.items, ['a', 'b']);
  assert.equal(page.hasPrevious, false);
  assert.equal(page.hasNext, true);
});

test('the last page may be short, and nothing follows it', () => {
  const page = paginate(letters, 3, 2);
  assert.deepEqual(page.items, ['e']);
  assert.equal(page.hasPrevious, true);
  assert.equal(page.hasNext, false);
});

test('a page past the end is the last page', () => {
  assert.equal(paginate(letters, 9, 2).page, 3);
});

test('an empty list has one empty page', () => {
  assert.deepEqual(paginate([], 1, 2).items, []);
  assert.equal(paginate([], 1, 2).lastPage, 1);
});

test('a page of no items is refused', () => {
  assert.throws(() => paginate(letters, 1, 0), RangeError);
});

test('few pages are all shown', () => {
  assert.deepEqual(pageNumbers(2, 3), [1, 2, 3]);
});

test('far pages are left out', () => {
  assert.deepEqual(pageNumbers(5, 9), [1, null, 4, 5, 6, null, 9]);
});
