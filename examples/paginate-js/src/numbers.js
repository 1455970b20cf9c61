/**
 * Returns the page numbers to show: the first, the last, and those within `reach` of the current
 * one; a gap is `null`.
 */
export function pageNumbers(current, lastPage, reach = 1) {
  const shown = [];
  for (let number = 1; number <= lastPage; number += 1) {
    const isEnd = number === 1 || number === lastPage;
    const isNear = Math.abs(number - current) <= reach;
    if (isEnd || isNear) {
      shown.push(number);
    } else if (shown[shown.length - 1] !== null) {
      shown.push(null);
    }
  }
  return shown;
}
