//! The threads that share a step's work.
//!
//! In: a number of tasks and what to do for each. Out: all of them done, in any order.
//! Never: uses the processor while nobody computes: a thread that has found no work for a moment sleeps.
//! Thread: whoever calls [`Pool::run`] works too; the others sleep or wait for work.
//!
//! A step has seven parts per layer that must follow one another, and a decoding step is over in two or three
//! milliseconds, so handing out a part must cost next to nothing. While a step runs the threads stay awake and look
//! for the next part themselves: handing it out is one store, joining it one compare-and-swap (0.3 µs in all; rayon's
//! wake-ups took a third of a decoding step). A thread that comes late finds the part closed and is not waited for.
#![expect(unsafe_code, reason = "tasks are lent to threads that outlive them (STYLE rule 32)")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for more work before it sleeps: longer than the sampling between two steps.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks between two glances at the clock, or between two offers of the core to others.
const N_LOOKS: u32 = 256;

/// Threads that take tasks together.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One caller at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// Which part this is, how many workers are inside it, and whether more may enter: see [`OPEN`].
    state: AtomicU64,
    /// The part's tasks. Written by the caller while the state is closed and empty, read by workers inside.
    part: UnsafeCell<Part>,
    /// The first task nobody has taken yet.
    next: AtomicUsize,
    is_over: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// For each worker whether it sleeps.
    asleep: Vec<AtomicBool>,
}

/// The state's lowest bit: workers may enter. Above it 15 bits count those inside, above them the part's number.
const OPEN: u64 = 1;
const INSIDE: u64 = 2;
const PART: u64 = 1 << 16;

struct Part {
    task: *const (dyn Fn(usize) + Sync),
    n_tasks: usize,
}

// SAFETY: `part` is written only while no worker is inside (the caller has waited for that), and read only inside; the
// pointer in it is to something that is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `n_threads − 1` threads; the caller is the other one.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(crate) fn new(n_threads: usize) -> std::io::Result<Self> {
        // As many as the state can count.
        let n_workers = n_threads.saturating_sub(1).min((PART / INSIDE) as usize - 1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            part: UnsafeCell::new(Part { task: &|_| {}, n_tasks: 0 }),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            panic: Mutex::new(None),
            asleep: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(n_workers), turn: Mutex::new(()) };
        for idx in 0..n_workers {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("engine pool {idx}"));
            pool.workers.push(thread.spawn(move || shared.work(idx))?);
        }
        Ok(pool)
    }

    /// Returns how many threads share the work, the caller among them.
    pub(crate) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with every number below `n_tasks`, and returns when all calls have.
    ///
    /// A task must not call this again on the same pool.
    ///
    /// # Panics
    /// If a task does; with its message, after all others have ended.
    pub(crate) fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if n_tasks <= 1 || self.workers.is_empty() {
            (0..n_tasks).for_each(task);
            return;
        }
        let turn = unpoisoned(&self.turn);
        let shared = &*self.shared;
        let number = shared.state.load(Ordering::Relaxed) / PART;
        // SAFETY: the state is closed and no worker inside, as the last call left it; so nobody reads this now. The
        // reference's lifetime is forgotten, but no worker is inside when this function returns, however it returns.
        unsafe {
            *shared.part.get() = Part {
                task: std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task),
                n_tasks,
            };
        }
        shared.next.store(0, Ordering::Relaxed);
        // Sequentially consistent, as is a worker's announcement that it will sleep: one of both sees the other.
        shared.state.store((number.wrapping_add(1) * PART) | OPEN, Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.take_tasks(task, n_tasks);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut n_looks = 0u32;
        while !shared.state.load(Ordering::Acquire).is_multiple_of(PART) {
            look_again(&mut n_looks);
        }
        let panic = unpoisoned(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `task` with each item, and returns when all calls have.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub(crate) fn for_each<T: Send>(&self, items: impl IntoIterator<Item = T>, task: impl Fn(T) + Sync) {
        let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.run(items.len(), &|idx| {
            if let Some(item) = unpoisoned(&items[idx]).take() {
                task(item);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panics are its tasks' and were passed on.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// What a worker does until the pool is dropped.
    fn work(&self, worker_idx: usize) {
        let mut last = 0;
        while let Some(number) = self.enter_next(worker_idx, last) {
            last = number;
            // SAFETY: this worker is inside, so the caller has written the part and waits before it writes again.
            let part = unsafe { &*self.part.get() };
            // SAFETY: for the same reason what this points to is still there.
            let task = unsafe { &*part.task };
            self.take_tasks(task, part.n_tasks);
            self.state.fetch_sub(INSIDE, Ordering::Release);
        }
    }

    /// Waits for a part after number `last` and enters it; `None` when the pool is dropped.
    fn enter_next(&self, worker_idx: usize, last: u64) -> Option<u64> {
        let mut since = Instant::now();
        let mut n_looks = 0u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / PART != last {
                let entered = state + INSIDE;
                if self
                    .state
                    .compare_exchange_weak(state, entered, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
                {
                    return Some(state / PART);
                }
                continue;
            }
            if self.is_over.load(Ordering::Acquire) {
                return None;
            }
            look_again(&mut n_looks);
            if n_looks.is_multiple_of(N_LOOKS) && since.elapsed() > AWAKE {
                self.sleep(worker_idx, last);
                since = Instant::now();
            }
        }
    }

    fn sleep(&self, worker_idx: usize, last: u64) {
        let asleep = &self.asleep[worker_idx];
        asleep.store(true, Ordering::SeqCst);
        let is_idle = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN == 0 || state / PART == last) && !self.is_over.load(Ordering::SeqCst)
        };
        // Whatever woke it, it looks around again before it sleeps on: another part may follow at once.
        if is_idle() {
            std::thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
    }

    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync), n_tasks: usize) {
        loop {
            let idx = self.next.fetch_add(1, Ordering::Relaxed);
            if idx >= n_tasks {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(idx))) {
                *unpoisoned(&self.panic) = Some(panic);
                self.next.store(n_tasks, Ordering::Relaxed);
            }
        }
    }
}

/// Passes a moment; now and then the core is offered to others, for there may be fewer cores than threads.
fn look_again(n_looks: &mut u32) {
    *n_looks = n_looks.wrapping_add(1);
    if n_looks.is_multiple_of(N_LOOKS) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_at_any_number_of_threads() {
        for n_threads in [1, 2, 3, 8] {
            let pool = Pool::new(n_threads).expect("threads start");
            for n_tasks in (0..200).chain([5_000]) {
                let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n_tasks, &|idx| _ = counts[idx].fetch_add(1, Ordering::Relaxed));
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn work_given_to_sleeping_threads_is_done() {
        let pool = Pool::new(3).expect("threads start");
        for _ in 0..20 {
            std::thread::sleep(2 * AWAKE);
            let mut squares = vec![0; 100];
            pool.for_each(squares.iter_mut().enumerate(), |(idx, square)| *square = idx * idx);
            assert!(squares.iter().enumerate().all(|(idx, square)| *square == idx * idx));
        }
        assert!(pool.shared.asleep.len() == 2);
    }

    #[test]
    fn a_thread_without_work_sleeps() {
        let pool = Pool::new(2).expect("threads start");
        pool.run(10, &|_| {});
        while !pool.shared.asleep[0].load(Ordering::SeqCst) {
            std::thread::sleep(AWAKE);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).expect("threads start");
        for _ in 0..50 {
            let run = || pool.run(20, &|idx| assert_ne!(idx, 7, "seven"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            let n_done = AtomicUsize::new(0);
            pool.run(20, &|_| _ = n_done.fetch_add(1, Ordering::Relaxed));
            assert_eq!(n_done.into_inner(), 20);
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2).expect("threads start");
        let n_done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(7, &|_| _ = n_done.fetch_add(1, Ordering::Relaxed));
                    }
                });
            }
        });
        assert_eq!(n_done.into_inner(), 4 * 500 * 7);
    }
}
