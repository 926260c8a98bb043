"""What Redis runs for the session log, each at one instant. All keys of a script are of one bucket, so of one slot.

A sequence is written with 16 digits, so that text compares as numbers do.
"""

APPEND = """
-- KEYS: events, bodies, impressions, last sequence, outbox
-- ARGV: arrival, oldest kept, stored events, stored impressions, milliseconds kept or '', actor,
--       then of each event: id, at, whether an impression, body
local events, bodies, shown, counter, out = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local arrived, cut, kept_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local last = math.max(tonumber(redis.call('GET', counter) or '0'), arrived - 1)
local results, added = {}, 0
for n = 7, #ARGV, 4 do
  local id, at, passive, body = ARGV[n], ARGV[n + 1], ARGV[n + 2] == '1', ARGV[n + 3]
  local first = false
  if passive then
    first = redis.call('ZSCORE', shown, id)
  else
    local held = redis.call('HGET', bodies, id)
    first = held and string.sub(held, 1, 16)
  end
  if first then
    results[#results + 1] = -tonumber(first)
  else
    last, added = last + 1, added + 1
    local number = string.format('%016.0f', last)
    if tonumber(at) >= cut then
      if passive then
        redis.call('ZADD', shown, number, id)
      else
        redis.call('ZADD', events, at, id)
        redis.call('HSET', bodies, id, number .. body)
      end
    end
    redis.call('XADD', out, string.format('%.0f', last) .. '-0', 'a', ARGV[6], 'r', ARGV[1], 'b', body)
    results[#results + 1] = last
  end
end
if added == 0 then return results end
redis.call('SET', counter, string.format('%016.0f', last))
local gone = redis.call('ZPOPMIN', events, math.max(0, redis.call('ZCARD', events) - tonumber(ARGV[3])))
for n = 1, #gone, 2 do redis.call('HDEL', bodies, gone[n]) end
redis.call('ZPOPMIN', shown, math.max(0, redis.call('ZCARD', shown) - tonumber(ARGV[4])))
if not kept_ms then
  for n = 1, 3 do redis.call('PERSIST', KEYS[n]) end
  return results
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', events, '-inf', '(' .. ARGV[2], 'LIMIT', 0, 100)) do
  redis.call('ZREM', events, id)
  redis.call('HDEL', bodies, id)
end
local newest = redis.call('ZREVRANGE', events, 0, 0, 'WITHSCORES')
if newest[2] then
  local left = string.format('%.0f', math.max(1, kept_ms + math.ceil((tonumber(newest[2]) - arrived) / 1000)))
  redis.call('PEXPIRE', events, left)
  redis.call('PEXPIRE', bodies, left)
end
redis.call('PEXPIRE', shown, ARGV[5])
return results
"""

READ = """
-- KEYS: events, bodies, last sequence; ARGV: limit, mark or ''
local last = redis.call('GET', KEYS[3]) or '0'
local limit, mark = tonumber(ARGV[1]), ARGV[2]
if mark == '' or mark >= last then mark = false end
local found, start, step = {}, 0, mark and 500 or math.min(limit, 5000)
while #found < limit do
  local ids = redis.call('ZREVRANGE', KEYS[1], start, start + step - 1)
  if #ids == 0 then break end
  for _, held in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    if #found < limit and (not mark or string.sub(held, 1, 16) <= mark) then found[#found + 1] = held end
  end
  start = start + step
end
return {mark or last, found}
"""

DELETE_UNTIL = """
-- KEYS: events, bodies; ARGV: time
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
for _, id in ipairs(gone) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return #gone
"""

DELETE = """
-- KEYS: events, bodies, impressions, merges, outbox; ARGV: actor, time, then sessions of merges
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
for _, id in ipairs(gone) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
local count = #gone + redis.call('ZCARD', KEYS[3])
redis.call('DEL', KEYS[3])
for n = 3, #ARGV do redis.call('SREM', KEYS[4], ARGV[n]) end
local from = '-'
while true do
  local waiting = redis.call('XRANGE', KEYS[5], from, '+', 'COUNT', 1000)
  for _, entry in ipairs(waiting) do
    if entry[2][2] == ARGV[1] and cjson.decode(entry[2][6])['at'] <= tonumber(ARGV[2]) then
      redis.call('XDEL', KEYS[5], entry[1])
    end
  end
  if #waiting < 1000 then return count end
  from = '(' .. waiting[#waiting][1]
end
"""
