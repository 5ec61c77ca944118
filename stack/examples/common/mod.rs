//! The command line that the examples share: which device, which addresses, which cores. It runs an application until Ctrl-C.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use handfast::drivers::clock::Clock;
use handfast::drivers::driver::{Port, Queue};
use handfast::drivers::impair::{Impair, Impairment};
use handfast::drivers::pcap::{self, Pcap};
use handfast::drivers::tap::{self, TapPort};
use handfast::drivers::wrap::Wrapped;
use handfast::drivers::xdp::AfXdp;
use handfast::time::Duration;
use handfast::{App, Cidr, Config, Idle, Runtime};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[derive(Args)]
pub(crate) struct DeviceOptions {
    /// How packets come and go.
    #[arg(long, value_enum, default_value_t = Device::AfXdp)]
    driver: Device,
    /// The network interface; of TAP: the one to make, and the kernel is at its other end.
    #[arg(long)]
    interface: String,
    /// An address for the kernel's end of a TAP device. Repeat it for more.
    #[arg(long, value_name = "ADDRESS/BITS")]
    kernel_address: Vec<Cidr>,
    /// An address of ours and its network, such as 192.0.2.1/24 or 2001:db8::1/64. Repeat it for more.
    #[arg(long, value_name = "ADDRESS/BITS", required = true)]
    address: Vec<Cidr>,
    /// The router to other networks. Repeat it for the other family.
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// The VLAN that we are on.
    #[arg(long, value_name = "1..4094")]
    vlan: Option<u16>,
    /// The cores to run on, one for each queue of the device, such as 0,1. Otherwise one worker, anywhere.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Sleep while nothing happens, instead of looking again at once.
    #[arg(long)]
    sleep: bool,
    /// Frames of each queue, of 2 or 4 KiB: what all its connections have between them.
    #[arg(long, default_value_t = 16_384)]
    frames: u32,
    /// Ask peers that were silent for so long whether they are still there; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u64,
    /// Record all packets, as pcapng. Further cores' files get their number.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Make a bad network of it, each way, such as loss=1%,duplicate=1%,corrupt=0.1%,reorder=5%,delay=10ms,jitter=1ms.
    #[arg(long, value_name = "KEY=VALUE,..", value_parser = impairment)]
    impair: Option<Impairment>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    #[value(name = "af_xdp")]
    AfXdp,
    Tap,
}

/// Runs one application a core until Ctrl-C or SIGTERM, lets connections end, and prints what was counted.
pub(crate) fn run<A: App>(
    options: &DeviceOptions,
    listen: u16,
    app: impl Fn(u16) -> A + Send + Sync + 'static,
) -> ExitCode {
    let mut config = Config { listen: vec![listen], ..Config::default() };
    config.tcp.keepalive_idle = (options.keepalive > 0).then_some(Duration::from_secs(options.keepalive));
    let mut runtime = Runtime::new(config);
    for &address in &options.address {
        runtime = runtime.address(address);
    }
    for &gateway in &options.gateway {
        runtime = runtime.gateway(gateway);
    }
    if let Some(vlan) = options.vlan {
        runtime = runtime.vlan(vlan);
    }
    if !options.cores.is_empty() {
        runtime = runtime.cores(options.cores.iter().copied());
    }
    if options.sleep {
        runtime = runtime.idle(Idle::Sleep);
    }
    let result = match options.driver {
        Device::AfXdp => {
            let port = AfXdp::interface(&options.interface).frames_per_queue(options.frames);
            start(options, runtime, port, app)
        }
        Device::Tap => {
            let config = tap::Config {
                name: options.interface.clone(),
                kernel_addresses: options.kernel_address.iter().map(|a| (a.address(), a.prefix_len())).collect(),
                frames_per_queue: options.frames,
                ..tap::Config::default()
            };
            start(options, runtime, TapPort::new(config), app)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// One line for people, and the exit status for scripts.
pub(crate) fn fail(error: impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Puts the device into the runtime.
fn start<P, A>(
    options: &DeviceOptions,
    runtime: Runtime<handfast::runtime::NoPort>,
    port: P,
    app: impl Fn(u16) -> A + Send + Sync + 'static,
) -> Result<(), Failure>
where
    P: Port<Queue: Queue<Driver: 'static> + 'static>,
    A: App,
{
    if options.pcap.is_none() && options.impair.is_none() {
        return finish(runtime.port(port), app);
    }
    let (file, impairment) = (options.pcap.clone(), options.impair.unwrap_or_default());
    let port = Wrapped::new(port, move |queue, driver| {
        let writer: Box<dyn Write> = match &file {
            Some(path) => {
                Box::new(File::create(numbered(path, queue)).map_err(|e| format!("{}: {e}", path.display()))?)
            }
            None => Box::new(io::sink()),
        };
        // The recorder stands next to the device: what it records is what a neighbour sees.
        let recorded = Pcap::new(driver, writer, pcap::Options::default())?;
        Ok(Impair::new(recorded, impairment, impairment, u64::from(queue), Clock::system()))
    });
    finish(runtime.port(port), app)
}

fn finish<P, A>(runtime: Runtime<P>, app: impl Fn(u16) -> A + Send + Sync + 'static) -> Result<(), Failure>
where
    P: Port<Queue: 'static>,
    A: App,
{
    let stop = runtime.stop_flag();
    for signal in [SIGINT, SIGTERM] {
        // The first one ends in good order. Whoever sends a second does not want to wait for that.
        flag::register_conditional_default(signal, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    let running = runtime.spawn(app)?;
    running.queues().iter().for_each(|queue| eprintln!("{}", queue.text));
    let report = running.join()?;
    eprint!("{report}");
    Ok(())
}

/// `out.pcapng`, `out.1.pcapng`, `out.2.pcapng`, …
fn numbered(path: &std::path::Path, queue: u16) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match queue {
        0 => path.into(),
        _ => path.with_extension(format!("{queue}.{extension}").trim_end_matches('.')),
    }
}

fn impairment(text: &str) -> Result<Impairment, String> {
    let mut impairment = Impairment::default();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or(format!("'{part}': write it as key=value"))?;
        let field = match key {
            "loss" => &mut impairment.loss_ppm,
            "duplicate" => &mut impairment.duplicate_ppm,
            "corrupt" => &mut impairment.corrupt_ppm,
            "reorder" => &mut impairment.reorder_ppm,
            "delay" => &mut impairment.delay_us,
            "jitter" => &mut impairment.jitter_us,
            _ => return Err(format!("'{key}': use loss, duplicate, corrupt, reorder, delay or jitter")),
        };
        let (unit, scale, max) = match key {
            "delay" | "jitter" => ("ms", 1e3, 60e6),
            _ => ("%", 1e4, 1e6),
        };
        let number = value.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
        let scaled = number.map(|number| number * scale).filter(|n| (0.0..=max).contains(n));
        *field = scaled.ok_or(format!("'{part}': give a number with its unit, such as {key}=1{unit}"))? as u32;
    }
    Ok(impairment)
}
