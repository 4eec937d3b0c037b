// SPDX-License-Identifier: GPL-2.0

//! Start and stop of the frontend.

use crate::adoption::Adopter;
use crate::closing;
use crate::counters::Counters;
use crate::datagram::Keeper;
use crate::discovery::Discovery;
use crate::establish::Follower;
use crate::frontend::Frontend;
use crate::giveback;
use crate::peers::Peers;
use crate::report::{
    Connections,
    Report, //
};
use crate::settings::{
    RawSettings,
    Settings, //
};
use crate::suspension::Suspension;
use crate::timeline::Timeline;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};
use xenvmc_net as net;
use xenvmc_net::StateProbe;
use xenvmc_xen::domain::{
    is_guest,
    is_initial, //
};
use xenvmc_xen::new_task;
use xenvmc_xen::pages;
use xenvmc_xen::suspend::Suspend;
use xenvmc_xen::work::Queue;

/// After how many seconds of waiting for tasks that are inside our methods a line is logged.
const PATIENCE_S: i64 = 10;

/// The frontend, from its start to its drop. One exists while the module is loaded.
pub struct Running {
    frontend: Arc<Frontend>,
    settings: Arc<Settings>,
    discovery: Option<Discovery>,
    probe: Option<StateProbe<Adopter>>,
    report: Option<Report>,
    suspend: Option<Pin<KBox<Suspend<Suspension>>>>,
}

impl Running {
    /// Starts.
    ///
    /// # Errors
    ///
    /// `ENODEV` if this is no guest of Xen; `EINVAL` if a parameter is out of its range; `ENOMEM`.
    pub fn start(raw: RawSettings) -> Result<Self> {
        if !is_guest() || is_initial() {
            pr_err!("this module is for guests of Xen; Dom0 loads xenvmc_backend\n");
            return Err(ENODEV);
        }
        net::learn_callbacks()?;
        let settings = Arc::new(Settings::new(raw)?, GFP_KERNEL)?;
        let counters = Arc::new(Counters::new(), GFP_KERNEL)?;
        let timeline = Arc::pin_init(Timeline::new(), GFP_KERNEL)?;
        let peers = Arc::pin_init(Peers::new(), GFP_KERNEL)?;
        let frontend = Frontend::new(&settings, &counters, &timeline, &peers)?;
        // From here on dropping it undoes what was done.
        let mut running = Self {
            frontend,
            settings,
            discovery: None,
            probe: None,
            report: None,
            suspend: None,
        };
        let follower = Follower::new(&running.frontend)?;
        let list = Arc::new(List(running.frontend.clone()), GFP_KERNEL)?;
        running.report = Some(Report::new(
            &running.settings,
            &counters,
            &timeline,
            &peers,
            list,
        )?);
        running.probe = Some(StateProbe::register(Adopter::new(&running.frontend)?)?);
        running.watch_datagrams()?;
        let discovery = Discovery::start(peers, counters, timeline, follower)?;
        let suspension = Suspension::new(&running.frontend, discovery.pacer());
        running.discovery = Some(discovery);
        running.suspend = Some(Suspend::new(suspension?)?);
        Ok(running)
    }

    /// Looks at UDP packets when there are peers, unless they are to be left alone.
    fn watch_datagrams(&self) -> Result {
        if self.settings.udp_ms() == 0 {
            return Ok(());
        }
        let keeper = Keeper::new(&self.frontend)?;
        let keeper = new_task!(Queue::Unbound, keeper, "xenvmc_keeper")?;
        self.frontend.datagrams().set_keeper(Some(keeper));
        self.frontend.datagrams().start_watching();
        Ok(())
    }
}

impl Drop for Running {
    /// Stops: connections go on over TCP, nothing of theirs is lost, nothing of ours is left.
    fn drop(&mut self) {
        // From here on nobody suspends: this task is not frozen before it has ended.
        self.suspend = None;
        self.settings.set_enabled(false);
        self.probe = None;
        if let Some(discovery) = &mut self.discovery {
            discovery.stop();
        }
        let frontend = &self.frontend;
        frontend.stop_connecting();
        // First the flows, over channels that are still open; then nobody sees packets any more.
        let datagrams = frontend.datagrams();
        datagrams.leave_all();
        datagrams.stop_watching();
        closing::close_all(frontend.peers());
        let registry = frontend.registry();
        registry.close();
        // Those that somebody else in the kernel has now (OpenVPN) get our table back from him, and then TCP's from us.
        let give_all_back = || {
            while let Some(stream) = registry.find(|stream| stream.is_installed()) {
                giveback::give_back(&stream);
            }
        };
        let start = Instant::<Monotonic>::now();
        let mut patience = PATIENCE_S;
        let is_busy = || registry.count_alive() > 0 || net::stray_calls() > 0;
        loop {
            give_all_back();
            if !is_busy() {
                break;
            }
            net::synchronize();
            if start.elapsed().as_millis() > patience * 1000 {
                pr_warn!(
                    "{} sockets are still in use, {} calls that found theirs given back\n",
                    registry.count_alive(),
                    net::stray_calls()
                );
                patience *= 2;
            }
        }
        // Channels of guests that are gone, and those that were just closed, end by their own work items.
        while frontend.channels().load(Relaxed) > 0 {
            // One whose upkeep waited for a program's call all the time has not been told yet.
            frontend
                .peers()
                .for_each_channel(|_, channel| closing::try_begin(channel));
            fsleep(Delta::from_millis(2));
            if start.elapsed().as_millis() > patience * 1000 {
                pr_warn!(
                    "{} channels are still ending\n",
                    frontend.channels().load(Relaxed)
                );
                patience *= 2;
            }
        }
        let keeper = datagrams.set_keeper(None);
        if let Some(keeper) = keeper {
            keeper.stop();
        }
        frontend.stop();
        self.discovery = None;
        self.report = None;
        net::barrier();
        net::synchronize();
        // Every channel is gone, and with it what was mapped.
        let left = pages::unpopulated();
        if left > 0 {
            pr_err!("{left} pages for mappings were not given back\n");
        }
    }
}

/// Lists the connections for users.
struct List(Arc<Frontend>);

impl Connections for List {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.0.registry().for_each(|stream| {
            if result.is_ok() {
                result = stream.describe(f);
            }
        });
        result
    }

    fn write_flows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.datagrams().describe(f)
    }
}
