/**
 * Returns one page of a list, and where it stands among the others. Pages count from 1; a page
 * number outside of the list is moved to the nearest page.
 */
export function paginate(items, page = 1, size = 10) {
  if (!Number.isInteger(size) || size < 1) {
    throw new RangeError('the size of a page is a whole number from 1');
  }
  const lastPage = Math.max(1, Math.ceil(items.length / size));
  const current = Math.min(Math.max(1, page), lastPage);
  const start = (current - 1) * size;
  return {
    items: items.slice(start, start + size),
    page: current,
    lastPage,
    hasPrevious: current > 1,
    hasNext: current <= lastPage,
  };
}
