# The stock: how much is left. One request a connection, in the plainest Perl.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
$SIG{TERM} = sub { exit 0 };
my $server = IO::Socket::INET->new(LocalPort => 9000, Listen => 64, ReuseAddr => 1)
  or die "cannot listen: $@";
print "stock listens on 9000\n";
my $left = 1000;
while (1) {
    my $client = $server->accept() or next;
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my $body = "{\"left\":" . $left-- . "}\n";
    print $client "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
      . "content-length: " . length($body) . "\r\n\r\n$body";
    close $client;
}
