export { paginate } from './page.js';
export { pageNumbers } from './numbers.js';
