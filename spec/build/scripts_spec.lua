-- scripts/setup and scripts/test keep their word: what is there is not installed again, and nothing that went
-- wrong passes.
local shell = require "spec.build.shell"
local quote = shell.quote

describe("scripts/setup", function()
    local folder

    before_each(function()
        folder = shell.temporary_folder()
    end)

    after_each(function()
        shell.run("rm -rf " .. quote(folder))
    end)

    it("calls nothing when nothing is missing", function()
        for _, name in ipairs { "apt-get", "apt", "sudo" } do
            shell.write(folder .. "/" .. name, "#!/bin/sh\necho called >>" .. folder .. "/called\nexit 1\n")
        end
        shell.must("chmod +x " .. quote(folder) .. "/*")
        local status, output = shell.run(("PATH=%s:$PATH scripts/setup"):format(quote(folder)))
        assert.equal("setup: everything is there\n", output)
        assert.equal(0, status)
        assert.is_nil(io.open(folder .. "/called"))
    end)

    it("names what is missing where there is no apt, and stops", function()
        for name in ("env printf id cat gcc g++ cmake ninja pkg-config luajit luacheck gnuplot"):gmatch("%S+") do
            shell.run(("ln -s \"$(command -v %s)\" %s/%s"):format(name, quote(folder), name))
        end
        shell.must(("ln -s \"$(PATH=$PATH:/sbin:/usr/sbin command -v ldconfig)\" %s/ldconfig"):format(quote(folder)))
        -- setup looks below /usr/sbin and /sbin too; where those are /usr/bin itself, apt cannot be hidden.
        if shell.run("test -e /usr/sbin/apt-get") == 0 then
            pending("apt-get stands in /usr/sbin here")
        end
        local bash = shell.must("command -v bash"):gsub("%s+$", "")
        local status, output = shell.run(("env -i PATH=%s %s scripts/setup"):format(quote(folder), bash))
        assert.equal(1, status)
        assert.matches("setup: missing: tmux", output)
        assert.matches("no apt on this system", output)
        assert.matches("\ntmux\n$", output)
    end)
end)

describe("scripts/test", function()
    local folder
    local modes = { asan = "--sanitize", tsan = "--threads", debug = "--debug" }
    local mode = modes[shell.build:match("build%-(%a+)$")] or ""

    before_each(function()
        folder = shell.temporary_folder()
    end)

    after_each(function()
        shell.run("rm -rf " .. quote(folder))
    end)

    local function run(text)
        local path = folder .. "/planted_spec.lua"
        shell.write(path, text)
        local status, output = shell.run(("scripts/test --no-build %s %s"):format(mode, quote(path)))
        return status, output:match("([^\n]*)\n*$"), output
    end

    it("counts what passed, failed and was skipped", function()
        local status, line = run [[
            it("passes", function() assert.is_true(true) end)
            it("passes too", function() assert.is_true(true) end)
            pending("waits")]]
        assert.equal("2 passed, 0 failed, 1 skipped", line)
        assert.equal(0, status)
    end)

    it("fails where a test fails", function()
        local status, line, output = run [[
            it("passes", function() assert.is_true(true) end)
            it("fails", function() assert.equal(1, 2) end)]]
        assert.equal("1 passed, 1 failed, 0 skipped", line)
        assert.equal(1, status)
        assert.matches("failed: fails", output)
    end)

    it("fails where a spec file cannot be read", function()
        local status, line = run [[it("is cut short", function(]]
        assert.equal("0 passed, 1 failed, 0 skipped", line)
        assert.equal(1, status)
    end)

    it("fails where there was nothing to run", function()
        local status, line = run [[describe("nothing", function() end)]]
        assert.equal("0 passed, 1 failed, 0 skipped", line)
        assert.equal(1, status)
    end)

    it("fails where the process ends early", function()
        local status, line = run [[
            it("passes", function() assert.is_true(true) end)
            it("leaves", function() os.exit(0) end)]]
        assert.equal("0 passed, 1 failed, 0 skipped", line)
        assert.equal(1, status)
    end)

    it("fails where the process crashes", function()
        local status, line = run [[
            it("crashes", function()
                local ffi = require "ffi"
                ffi.cdef "int raise(int);"
                ffi.C.raise(11)
            end)]]
        assert.equal("0 passed, 1 failed, 0 skipped", line)
        assert.equal(1, status)
    end)

    if mode == "--sanitize" then
        it("fails where the address sanitizer finds something", function()
            local status, line, output = run [[
                it("writes past a block's end", function()
                    local ffi = require "ffi"
                    ffi.cdef "void *malloc(size_t); void *memset(void *, int, size_t);"
                    ffi.C.memset(ffi.C.malloc(8), 0, 16)
                end)]]
            assert.equal("0 passed, 1 failed, 0 skipped", line)
            assert.equal(1, status)
            assert.matches("AddressSanitizer: heap%-buffer%-overflow", output)
        end)
    end
end)
