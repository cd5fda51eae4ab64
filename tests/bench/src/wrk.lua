-- What wrk sends and reports. Arguments after "--": nothing for GET, the size of the body in bytes for POST.
-- There is no `request` and no `response` function here: wrk then makes the request once and parses no headers.

function init(args)
   if args[1] then
      wrk.method = "POST"
      wrk.body = string.rep("x", tonumber(args[1]))
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format("measured %d %d %d %d %d\n",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
