//! What is measured of each request for dashboards that were made for ingress-nginx.

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

impl Measure {
    pub const ALL: [Self; 7] =
        [Self::Request, Self::Response, Self::Header, Self::Connect, Self::RequestSize, Self::ResponseSize, Self::Sent];

    /// How many of its units make one of what is shown: seconds, or bytes.
    pub const fn unit(self) -> f64 {
        match self {
            Self::Request | Self::Response | Self::Header | Self::Connect => 1e6,
            Self::RequestSize | Self::ResponseSize | Self::Sent => 1.0,
        }
    }
}

/// Upper bounds of the buckets, ascending; a last bucket takes the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In microseconds.
    pub times: Vec<u64>,
    /// In bytes: of [`Measure::RequestSize`] and [`Measure::ResponseSize`].
    pub lengths: Vec<u64>,
    /// In bytes: of [`Measure::Sent`].
    pub sizes: Vec<u64>,
}

/// Those of ingress-nginx 1.15.
impl Default for Bounds {
    fn default() -> Self {
        let millis = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
        Self {
            times: millis.map(|ms| ms * 1_000).to_vec(),
            lengths: (1..=10).map(|n| n * 10).collect(),
            sizes: (1..=7).map(|n| 10_u64.pow(n)).collect(),
        }
    }
}

impl Bounds {
    pub fn of(&self, measure: Measure) -> &[u64] {
        match measure {
            Measure::Request | Measure::Response | Measure::Header | Measure::Connect => &self.times,
            Measure::RequestSize | Measure::ResponseSize => &self.lengths,
            Measure::Sent => &self.sizes,
        }
    }
}

/// What was observed of one measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Observations in each bucket alone, one more than there are bounds.
    pub buckets: Vec<u64>,
    pub sum: u64,
}

impl Distribution {
    /// Both are of the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
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
