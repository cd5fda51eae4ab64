//! The wasmtime engines: for synchronous guests whose instances are reused, fresh for each call, or rewound, and for WASI 0.3's
//! concurrent calls. How guests are compiled, and where their memories, tables and stacks come from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{
    Config as EngineConfig, Enabled, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::config::{Config, Instances, Passes};
use crate::guest;
use crate::sandbox::memory::{Creator, MemoryImages, Pool, Scanner, Shelves, Stacks};
use crate::sandbox::{State, go_first};

/// How often a running guest is looked at. One thread ticks for the whole engine: a timer per request would cost more
/// than the requests (wasmtime#11814).
const TICK: Duration = Duration::from_millis(1);

/// How often the ticker wakes while no guest runs.
const IDLE_TICK: Duration = Duration::from_millis(10);

/// Ticks without a call after which the ticker slows down.
const IDLE_AFTER: u32 = 100;

/// How a component's functions are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Abi {
    /// An instance runs one call at a time: WSGI, WASI 0.2.
    Sync,
    /// Calls, streams and futures of one instance are under way together: WASI 0.3.
    Async,
}

/// How a component is compiled, and so which of the engines runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Synchronous, its sandboxes from wasmtime's pool.
    Sync,
    /// Synchronous, with memories of our own (`memory`): for sandboxes that serve one call.
    Own,
    /// The same, with what rewinding needs compiled into it (`deploy/passes/rewind`).
    Rewind,
    /// For WASI 0.3.
    Async,
}

impl Variant {
    /// For an app with this policy on instances, which can be rewound if it is to be.
    pub fn of(abi: Abi, instances: Instances, passes: Passes) -> Self {
        match (abi, instances) {
            (Abi::Async, _) => Self::Async,
            (Abi::Sync, Instances::Rewind(_)) => Self::Rewind,
            (Abi::Sync, Instances::Fresh) if passes == Passes::All => Self::Own,
            (Abi::Sync, _) => Self::Sync,
        }
    }

    /// Whether its memories are ours, and may begin with an image that is kept beside the code.
    pub fn has_own_memories(self) -> bool {
        matches!(self, Self::Own | Self::Rewind)
    }
}

/// The engines of this host, with their ticker.
pub struct Engine {
    sync: Half,
    /// These are made when the first component asks for them: until then they cost nothing.
    own: OnceLock<Half>,
    rewind: OnceLock<Half>,
    concurrent: OnceLock<Half>,
    /// Held by whoever makes one.
    making: Mutex<()>,
    /// Sandboxes with memories of our own that may still be made: their engines have no pool that counts.
    seats: Arc<Semaphore>,
    /// Where their memories come from.
    pool: Arc<Pool>,
    config: Config,
    ticker: Arc<Ticker>,
}

/// One of them.
struct Half {
    engine: wasmtime::Engine,
    /// Where memories are ours: one of the same settings, in whose pool nothing is ever made. It refuses what would be too large
    /// for one sandbox, as the pools of the others do.
    judge: Option<wasmtime::Engine>,
    /// What guests may import.
    linker: Linker<State>,
    /// Who keeps idle sandboxes of this engine's pool.
    keepers: Mutex<Vec<Weak<dyn Keeper>>>,
}

/// Somebody who keeps sandboxes for their next call, and gives one up when the pool is full.
pub(crate) trait Keeper: Send + Sync {
    /// Drops the sandbox that was idle for longest. False if there is none.
    fn give_up_one(&self) -> bool;
}

impl Engine {
    /// The engines that run guests: pooled, metered, interruptible.
    ///
    /// # Errors
    /// Where the machine cannot give the address space that the pool needs.
    pub fn new(config: &Config) -> Result<Self> {
        let ticker = Ticker::start()?;
        let sync = Half::new(config, Variant::Sync, &ticker)?;
        Ok(Self {
            sync,
            own: OnceLock::new(),
            rewind: OnceLock::new(),
            concurrent: OnceLock::new(),
            making: Mutex::new(()),
            seats: Arc::new(Semaphore::new(config.sandboxes as usize)),
            pool: Pool::new(config.sandboxes as usize, Scanner::new()),
            config: config.clone(),
            ticker,
        })
    }

    /// The engine for components of this variant.
    ///
    /// # Errors
    /// Where the machine cannot give the address space that another pool needs.
    pub fn wasmtime(&self, variant: Variant) -> Result<&wasmtime::Engine> {
        let half = match variant {
            Variant::Sync => return Ok(&self.sync.engine),
            Variant::Own => &self.own,
            Variant::Rewind => &self.rewind,
            Variant::Async => &self.concurrent,
        };
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(half) = half.get() {
            return Ok(&half.engine);
        }
        let made = Half::new(&self.config, variant, &self.ticker)?;
        if variant.has_own_memories() && self.own.get().or(self.rewind.get()).is_none() {
            tracing::info!("memories: {}", reset_text(self.pool.scans()));
        }
        Ok(&half.get_or_init(|| made).engine)
    }

    /// An engine that says whether code for another one fits a sandbox, where that does not say so itself.
    pub(crate) fn judge(&self, engine: &wasmtime::Engine) -> Option<&wasmtime::Engine> {
        self.half(engine).judge.as_ref()
    }

    /// Sandboxes that may exist at the same time.
    pub fn sandboxes(&self) -> u32 {
        self.config.sandboxes
    }

    /// What an app's memories come from, if its engine has memories of our own.
    pub(crate) fn shelves(&self, component: &Component, images: &MemoryImages) -> Option<Arc<Shelves>> {
        let halves = [self.own.get(), self.rewind.get()];
        let is_own = |half: &Half| wasmtime::Engine::same(&half.engine, component.engine());
        halves.into_iter().flatten().any(is_own).then(|| Shelves::new(&self.pool, images))
    }

    /// The right to make one more sandbox with memories of our own. None if there are as many as may be.
    pub(crate) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.seats).try_acquire_owned().ok()
    }

    /// Threads on which guests run.
    pub(crate) fn workers(&self) -> usize {
        self.config.workers
    }

    /// Whether a component was prepared to be rewound.
    pub(crate) fn is_for_rewinding(&self, component: &Component) -> bool {
        self.rewind.get().is_some_and(|half| wasmtime::Engine::same(&half.engine, component.engine()))
    }

    /// Whether an instance of a component may have several calls under way.
    pub(crate) fn is_concurrent(&self, component: &Component) -> bool {
        self.concurrent.get().is_some_and(|half| wasmtime::Engine::same(&half.engine, component.engine()))
    }

    /// Links a component to what its engine offers.
    ///
    /// # Errors
    /// Says which import does not fit.
    pub(crate) fn link(&self, component: &Component) -> Result<InstancePre<State>> {
        self.half(component.engine()).linker.instantiate_pre(component).map_err(|error| anyhow!("{error:#}"))
    }

    /// Idle sandboxes that `keeper` has of this engine may be taken when its pool is full.
    pub(crate) fn register(&self, engine: &wasmtime::Engine, keeper: Weak<dyn Keeper>) {
        let mut keepers = self.half(engine).keepers();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// Makes room in this engine's pool: some idle sandbox goes. False if none is idle.
    pub(crate) fn make_room(&self, engine: &wasmtime::Engine) -> bool {
        let half = self.half(engine);
        // Memories of our own are for two engines: what is idle in one of them is in the other's way.
        let sharing = if half.judge.is_some() { [self.own.get(), self.rewind.get()] } else { [Some(half), None] };
        sharing.into_iter().flatten().any(Half::give_up_one)
    }

    fn half(&self, engine: &wasmtime::Engine) -> &Half {
        let made = [self.own.get(), self.rewind.get(), self.concurrent.get()];
        let mut made = made.into_iter().flatten();
        made.find(|half| wasmtime::Engine::same(&half.engine, engine)).unwrap_or(&self.sync)
    }

    /// A call begins: the ticker must tick.
    pub(crate) fn wake_ticker(&self) {
        // Read before written: the flag's cache line is shared by all workers and stays so while it is set.
        if !self.ticker.busy.load(Ordering::Relaxed) {
            self.ticker.busy.store(true, Ordering::Relaxed);
        }
    }
}

impl Half {
    fn new(config: &Config, variant: Variant, ticker: &Ticker) -> Result<Self> {
        let settings = || compiler_settings(config.stack_bytes, variant);
        let pooled = |sandboxes| {
            let pool = InstanceAllocationStrategy::Pooling(pool(config, sandboxes));
            wasmtime::Engine::new(settings().allocation_strategy(pool)).map_err(|error| {
                anyhow!("cannot reserve a pool for {sandboxes} sandboxes, lower `sandboxes`: {error:#}")
            })
        };
        // wasmtime's pool has no memories but its own.
        let (engine, judge) = if variant.has_own_memories() {
            let mut settings = settings();
            settings.with_host_memory(Arc::new(Creator)).with_host_stack(Arc::new(Stacks::default()));
            let engine = wasmtime::Engine::new(&settings).map_err(|error| anyhow!("cannot make an engine: {error:#}"));
            (engine?, Some(pooled(1)?))
        } else {
            (pooled(config.sandboxes)?, None)
        };
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker, variant).map_err(|error| anyhow!("cannot link what guests import: {error:#}"))?;
        ticker.engines().push(engine.weak());
        Ok(Self { engine, judge, linker, keepers: Mutex::default() })
    }

    /// Some idle sandbox of this engine goes. False if none is idle.
    fn give_up_one(&self) -> bool {
        let mut keepers = self.keepers();
        let found = keepers.iter().position(|keeper| keeper.upgrade().is_some_and(|keeper| keeper.give_up_one()));
        // The next time it is another's turn.
        if let Some(found) = found {
            keepers.rotate_left(found + 1);
        }
        found.is_some()
    }

    fn keepers(&self) -> MutexGuard<'_, Vec<Weak<dyn Keeper>>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine that compiles for [`Engine`] but runs nothing: the compiler process has no use for a pool.
///
/// # Errors
/// Where cranelift does not know this machine.
pub fn compiler(stack_bytes: u64, variant: Variant) -> Result<wasmtime::Engine> {
    wasmtime::Engine::new(&compiler_settings(stack_bytes, variant))
        .map_err(|error| anyhow!("cannot compile on this machine: {error:#}"))
}

/// What compiled code depends on. Engines with the same settings here can load each other's code.
fn compiler_settings(stack_bytes: u64, variant: Variant) -> EngineConfig {
    let stack_bytes = usize::try_from(stack_bytes).expect("config bounds the stack's size");
    let mut settings = EngineConfig::new();
    settings
        .epoch_interruption(true)
        // WASI 0.3's concurrent calls need it, synchronous guests pay two microseconds a call for it.
        .concurrency_support(variant == Variant::Async)
        // Memories of our own have images of their own.
        .memory_init_cow(!variant.has_own_memories())
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(stack_bytes)
        // Host functions run on the guest's stack, above what wasm may use of it.
        .async_stack_size(stack_bytes + HOST_STACK_BYTES)
        // Function names come from the name section; debug information of strangers is not parsed.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Registering unwind information makes dropping a component slow (wasmCloud#5555), and hot reload drops often.
        .native_unwind_info(false);
    settings
}

/// Stack that host functions may need on top of a guest's.
const HOST_STACK_BYTES: usize = 256 << 10;

/// Dirty memory of a finished sandbox up to this size is reset in place; what is beyond is given back to the kernel.
const MEMORY_KEPT_BYTES: usize = 1 << 20;

fn pool(config: &Config, sandboxes: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(sandboxes)
        .total_core_instances(sandboxes.saturating_mul(8))
        .max_core_instances_per_component(64)
        // Most guests have one memory and two tables; what a guest with more takes, others go without.
        .total_memories(sandboxes.saturating_add(sandboxes / 4))
        .total_tables(sandboxes.saturating_mul(3))
        .total_stacks(sandboxes)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        // The modules of a component become one where they can (`deploy/passes/flatten`).
        .max_memories_per_module(8)
        .max_tables_per_module(32)
        .max_memory_size(usize::try_from(config.limits.memory_bytes).expect("config bounds the memory"))
        .table_elements(usize::try_from(config.limits.table_elements).expect("config bounds the tables"))
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES)
        .table_keep_resident(64 << 10)
        .pagemap_scan(if swap_in_use() { Enabled::No } else { Enabled::Auto });
    pool
}

/// Whether the kernel can be asked what a call has written.
pub fn kernel_finds_written_pages() -> bool {
    Scanner::new().is_available()
}

/// How it is found what a call has written to a memory of our own, for the log and `wasgi check --config`.
pub fn reset_text(scans: bool) -> &'static str {
    if scans {
        "the kernel says which pages a call has written (PAGEMAP_SCAN), and those are put back"
    } else {
        "this kernel has no PAGEMAP_SCAN (Linux 6.7): all pages are given back after each call, which is as exact and slower"
    }
}

/// Whether pages of this process may be swapped out.
///
/// The quick way to reset a sandbox's memory asks the kernel which of its pages are dirty, and wasmtime 48 asks only for those
/// that are present: a dirty page in swap would be neither reset nor released (wasmtime PR #14357). So with swap the slow,
/// exact way is taken. An unreadable list counts as swap.
fn swap_in_use() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// One thread that ticks for all engines. It ends with them.
struct Ticker {
    /// Set by each call, cleared by the thread.
    busy: AtomicBool,
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    fn start() -> Result<Arc<Self>> {
        let ticker = Arc::new(Self { busy: AtomicBool::new(false), engines: Mutex::default() });
        let weak = Arc::downgrade(&ticker);
        std::thread::Builder::new()
            .name("wasgi-ticker".into())
            .spawn(move || {
                // A tick that comes late is a turn that lasts longer.
                let _ = go_first();
                let mut idle = 0_u32;
                loop {
                    std::thread::sleep(if idle > IDLE_AFTER { IDLE_TICK } else { TICK });
                    let Some(ticker) = weak.upgrade() else { return };
                    idle = if ticker.busy.swap(false, Ordering::Relaxed) { 0 } else { idle.saturating_add(1) };
                    for engine in ticker.engines().iter().filter_map(EngineWeak::upgrade) {
                        engine.increment_epoch();
                    }
                }
            })
            .context("cannot start the ticker's thread")?;
        Ok(ticker)
    }

    fn engines(&self) -> MutexGuard<'_, Vec<EngineWeak>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
