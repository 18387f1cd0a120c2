-- Several threads in the engine at once: a C program (hammer.c), since a Lua state has one thread.

local shell = require "spec.build.shell"

describe("the engine in several threads", function()
    it("computes what one thread does, keeps errors apart, and leaves nothing behind", function()
        local folder = shell.temporary_folder()
        local program, library = folder .. "/hammer", shell.build .. "/libperigee.so"
        local linked = shell.must("readelf -d " .. shell.quote(library))
        local flags = linked:find("libtsan", 1, true) and "-fsanitize=thread"
            or linked:find("libasan", 1, true) and "-fsanitize=address,undefined" or ""
        shell.must(("env -u LD_PRELOAD gcc -std=c11 -Wall -Wextra -Werror -O1 -g %s " ..
            "-I%s/engine/include %s %s -Wl,-rpath,%s -pthread -o %s"):format(flags,
            shell.quote(shell.source), shell.quote(shell.source .. "/spec/threads/hammer.c"), shell.quote(library),
            shell.quote(shell.build), shell.quote(program)))
        local status, output = shell.run("PERIGEE_GRAIN=64 " .. shell.quote(program))
        shell.must("rm -rf " .. shell.quote(folder))
        assert.equal(0, status, output)
        assert.equal("sound\n", output)
    end)
end)
