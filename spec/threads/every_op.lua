-- Runs every op and its gradients at 1, 2 and 3 threads and compares the bits. threads_spec.lua runs it as
--   PERIGEE_GRAIN=1 luajit spec/threads/every_op.lua [plant]
-- with a grain of one, so that tensors of a few elements are split over every thread; the large cases below it show the
-- same where kernels work in blocks. Prints a line for each difference and "N cases, M differ".
-- plant: an op whose result depends on the number of threads is put among them.

package.path = "./lua/?.lua;./lua/?/init.lua;./?.lua;" .. package.path

local ffi = require "ffi"
local pg = require "perigee"
local every_op = require "spec.support.every_op"

local THREADS = { 1, 2, 3 }

local function bits(t)
    t = t:detach():contiguous()
    local bytes = t.nbytes
    local memory = ffi.new("uint8_t[?]", math.max(bytes, 1))
    if bytes > 0 then t:to_memory(memory, bytes) end
    return ffi.string(memory, bytes)
end

local cases, differing = 0, 0

--- f(): tensors, whose bits must not depend on the number of threads.
local function case(name, f)
    cases = cases + 1
    local first
    for _, threads in ipairs(THREADS) do
        pg.set_num_threads(threads)
        local got = {}
        for k, t in ipairs { f() } do got[k] = bits(t) end
        first = first or got
        for k = 1, math.max(#first, #got) do
            if first[k] ~= got[k] then
                differing = differing + 1
                print(("DIFFERS at %d threads, result %d: %s"):format(threads, k, name))
                return
            end
        end
    end
end

local list, missing = every_op "cpu"
for _, symbol in ipairs(missing) do print("NO CASE for " .. symbol) end
for _, one in ipairs(list) do case(one.name, one.run) end

if arg[1] == "plant" then
    case("planted", function() return pg.ones(3) * pg.get_num_threads() end)
end

print(("%d cases, %d differ, %d missing"):format(cases, differing, #missing))
