//! What is measured of each request for dashboards that were made for ingress-nginx, in its buckets.

/// One histogram of ingress-nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// From the request's head to the answer's end.
    Request,
    /// From asking a backend to the end of its answer.
    Response,
    /// From asking a backend to the head of its answer.
    Header,
    /// Until there was a connection to a backend; 0 where one was open.
    Connect,
    /// Head and body.
    RequestSize,
    ResponseSize,
    /// The same as [`Self::ResponseSize`] in the wider buckets of the older name.
    Sent,
}

/// Prometheus' default buckets, in microseconds.
const TIMES: &[u64] =
    &[5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];
/// `--length-buckets` and `--size-buckets` of ingress-nginx 1.15, in bytes.
const LENGTHS: &[u64] = &[10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
const SIZES: &[u64] = &[10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

impl Measure {
    pub const ALL: [Self; 7] =
        [Self::Request, Self::Response, Self::Header, Self::Connect, Self::RequestSize, Self::ResponseSize, Self::Sent];
    /// The most buckets that one has, that without a bound included.
    pub const MOST: usize = TIMES.len() + 1;

    /// Upper bounds, ascending, in microseconds or bytes; a last bucket takes the rest.
    pub const fn bounds(self) -> &'static [u64] {
        match self {
            Self::Request | Self::Response | Self::Header | Self::Connect => TIMES,
            Self::RequestSize | Self::ResponseSize => LENGTHS,
            Self::Sent => SIZES,
        }
    }

    /// How many of its units make one of what is shown: seconds, or bytes.
    pub const fn unit(self) -> f64 {
        match self {
            Self::Request | Self::Response | Self::Header | Self::Connect => 1e6,
            Self::RequestSize | Self::ResponseSize | Self::Sent => 1.0,
        }
    }
}

/// What was observed of one measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Observations in each bucket alone; those behind the measure's own stay 0.
    pub buckets: [u64; Measure::MOST],
    pub sum: u64,
}

impl Distribution {
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.sum += other.sum;
    }
}

/// Requests of one route that are alike in these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// `other` for those that no RFC has.
    pub method: &'static str,
    /// 499: the client went away before an answer. 0: of any status, because a route had too many.
    pub status: u16,
    /// `namespace-service-port` of the canary that took them, or empty.
    pub canary: String,
    pub requests: u64,
    /// In the order of [`Measure::ALL`].
    pub measured: [Distribution; Measure::ALL.len()],
}

impl Series {
    pub fn is_like(&self, other: &Self) -> bool {
        (self.method, self.status) == (other.method, other.status) && self.canary == other.canary
    }

    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        for (own, more) in self.measured.iter_mut().zip(&other.measured) {
            own.merge(more);
        }
    }
}
